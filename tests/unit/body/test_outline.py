"""Rims and girths against bodies whose width is known."""

from dataclasses import replace

import numpy as np
import pytest

from dpscale.body.motion import load_motion
from dpscale.body.outline import Outlines, _distance_to_outline, find_rim, fit_girths
from dpscale.body.parametric import load_body
from dpscale.body.rest_surface import NUM_GIRTHS
from dpscale.body.surface_maps import rasterise_body
from dpscale.data.types import BodyMotion

SIZE, FOCAL, CENTER = 160, 250.0, (80.0, 80.0)
TO_CAMERA = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


@pytest.fixture(scope="module")
def wide():
    """A body whose girths are all 3 cm, turning in front of the camera, and its outlines."""
    body = load_body()
    shape = replace(body.mean_shape, girths=np.full(NUM_GIRTHS, 0.03))
    world = load_motion("walk", body, body.shaped(shape), 6.0, 8)
    motion = BodyMotion(TO_CAMERA @ world.rotations, world.root @ TO_CAMERA.T + [0, 1.0, 3.5], FOCAL, CENTER)
    vertices = body.skin(body.shaped(shape), motion.rotations, motion.root)
    masks = np.stack([rasterise_body(body, v, FOCAL, CENTER, SIZE, SIZE).face >= 0 for v in vertices])
    return body, motion, Outlines((masks * 255).astype(np.uint8), float(SIZE), 8)


def test_the_rim_of_a_bare_body_lies_a_girth_inside_the_outline(wide):
    body, motion, outlines = wide
    rim = find_rim(body, body.shaped(body.mean_shape), motion, outlines, range(8))
    assert set(rim.frame) == set(range(8))
    assert np.median(rim.gap_m) == pytest.approx(0.03, abs=0.006)  # half a pixel is 7 mm here
    np.testing.assert_allclose(np.linalg.norm(rim.normal, axis=1), 1, atol=1e-6)


def test_the_right_body_leaves_no_gap(wide):
    body, motion, outlines = wide
    shape = replace(body.mean_shape, girths=np.full(NUM_GIRTHS, 0.03))
    assert abs(np.median(find_rim(body, body.shaped(shape), motion, outlines, range(8)).gap_m)) < 0.006


def test_girths_are_found(wide):
    body, motion, outlines = wide
    girths = np.zeros(NUM_GIRTHS)
    for _ in range(3):
        shaped = body.shaped(replace(body.mean_shape, girths=girths))
        girths = fit_girths(body, find_rim(body, shaped, motion, outlines, range(8)), 1.0, girths)
    assert np.median(girths) == pytest.approx(0.03, abs=0.01)


def test_the_scale_of_the_outlines_does_not_matter(wide):
    body, motion, outlines = wide
    twice = BodyMotion(motion.rotations, motion.root, 2 * FOCAL, (2 * CENTER[0], 2 * CENTER[1]))
    shaped = body.shaped(body.mean_shape)
    once = find_rim(body, shaped, motion, outlines, range(2))
    larger = find_rim(body, shaped, twice, replace(outlines, side_px=2.0 * SIZE), range(2))
    np.testing.assert_allclose(larger.target, 2 * once.target)
    np.testing.assert_allclose(larger.gap_m, once.gap_m)


def test_nobody_in_sight_gives_no_rim(wide):
    body, motion, outlines = wide
    rim = find_rim(body, body.shaped(body.mean_shape), motion, replace(outlines, coverage=np.zeros_like(outlines.coverage)), range(2))
    assert len(rim.frame) == 0
    np.testing.assert_array_equal(fit_girths(body, rim, 1.0, np.zeros(NUM_GIRTHS)), 0)


def test_an_edge_is_found_between_pixels():
    ramp = np.clip(10.25 - np.arange(40), 0, 1)[None].repeat(40, 0)  # covers x < 10.25 px
    points, right = np.array([[9.0, 20.0], [11.5, 20.0], [30.0, 20.0]]), np.tile([1.0, 0.0], (3, 1))
    np.testing.assert_allclose(_distance_to_outline(ramp, points, right), [1.25, -1.25, np.nan], atol=0.1)
