"""Driving sequences stay in the picture, on the reference performer's spot and floor, upright in the reference's camera."""

from dataclasses import replace

import numpy as np
import pytest

from dpscale.body.camera import Viewpoint, project
from dpscale.body.motion import load_motion
from dpscale.body.parametric import load_body
from dpscale.body.rendered import person
from dpscale.data.types import BodyMotion, InputError
from dpscale.preprocess.drive import Movement, _up, drive_by_movement, drive_by_recording

SIZE = 128
VIEW = Viewpoint.looking_at(np.array([0.0, -4.0, 1.7]), np.array([0, 0, 0.9]))


def movement(seed: int, recording: str, num_frames: int = 20, fps: float = 15.0, focal: float = 170.0) -> Movement:
    who = person(seed)
    seen = load_motion(recording, load_body(), who.shaped, fps, num_frames).seen_from(VIEW)
    return Movement(who.shape, BodyMotion(seen.rotations, seen.root, focal, (SIZE / 2, SIZE / 2)), fps)


@pytest.fixture(scope="module")
def reference():
    return movement(1_000_001, "walk")


def pixels(motion: BodyMotion, who: Movement) -> np.ndarray:
    body = load_body()
    vertices = body.skin(body.shaped(who.shape), motion.rotations, motion.root)
    return project(vertices, motion.focal_px, motion.center_px)[0]


def test_up_is_found_from_a_stretched_body(reference):
    angle = np.degrees(np.arccos(_up(load_body(), reference) @ (VIEW.rotation @ [0, 0, 1.0])))
    assert angle < 6


@pytest.mark.parametrize("recording", ["dance_b", "cartwheel"])
def test_a_recording_is_put_where_the_reference_stands(reference, recording):
    motion = drive_by_recording(load_body(), reference, recording, 12, reference.fps, SIZE)
    points = pixels(motion, reference)
    assert points.min() >= 0
    assert points.max() <= SIZE
    assert len(motion.root) == 12
    assert (motion.focal_px, motion.center_px) == (reference.motion.focal_px, reference.motion.center_px)
    assert abs(np.median(motion.root[:, 2]) - np.median(reference.motion.root[:, 2])) < 0.4
    np.testing.assert_allclose(np.linalg.det(motion.rotations), 1, atol=1e-6)


def test_the_same_movement_comes_back(reference):
    motion = drive_by_movement(load_body(), reference, reference, SIZE)
    np.testing.assert_allclose(motion.rotations, reference.motion.rotations)
    np.testing.assert_allclose(motion.root, reference.motion.root, atol=1e-9)


def test_another_bodys_feet_stand_on_the_references_floor(reference):
    driver = movement(1_000_007, "dance_a", num_frames=25)
    motion = drive_by_movement(load_body(), reference, driver, SIZE)
    body, up = load_body(), _up(load_body(), reference)
    lowest = [
        np.percentile((body.joint_positions(body.shaped(reference.shape), m.rotations, m.root) @ up).min(1), 5) for m in (motion, reference.motion)
    ]
    assert abs(lowest[0] - lowest[1]) < 0.1
    assert len(motion.root) == 25


def test_a_path_that_leaves_the_picture_is_brought_back(reference):
    far = reference.motion.root + np.linspace(-3, 3, len(reference.motion.root))[:, None] * [1, 0, 0]
    driver = replace(reference, motion=replace(reference.motion, root=far))
    points = pixels(drive_by_movement(load_body(), reference, driver, SIZE), reference)
    assert points.min() >= 0
    assert points.max() <= SIZE


def test_a_body_larger_than_the_picture_moves_away(reference):
    close = replace(reference, motion=replace(reference.motion, focal_px=500.0))
    points = pixels(drive_by_recording(load_body(), close, "dance_b", 8, 30.0, SIZE), close)
    assert points.min() >= -1
    assert points.max() <= SIZE + 1


def test_an_unknown_recording_is_refused(reference):
    with pytest.raises(InputError, match="known are"):
        drive_by_recording(load_body(), reference, "polka", 8, 30.0, SIZE)
