"""Girths move the surface along its normals, the same on both sides."""

from dataclasses import replace

import numpy as np
import pytest

from dpscale.body.parametric import load_body
from dpscale.body.rest_surface import NUM_GIRTHS, vertex_normals


def test_normals_point_outward_and_have_length_one():
    body = load_body()
    normals = vertex_normals(body.vertices, body.faces)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    chest = np.argmin(np.linalg.norm(body.vertices - [0, body.vertices[:, 1].min(), body.heads[body.bone_index["spine01"]][2]], axis=1))
    assert normals[chest, 1] < 0  # the body faces -y


def test_equal_girths_widen_everything_equally():
    body = load_body()
    assert body.girth_basis.shape == (len(body.vertices), NUM_GIRTHS)
    np.testing.assert_allclose(body.girth_basis.sum(1), 1, atol=0.02)
    bare, wide = (body.shaped(replace(body.mean_shape, girths=np.full(NUM_GIRTHS, g))).vertices for g in (0.0, 0.02))
    np.testing.assert_allclose(np.linalg.norm(wide - bare, axis=1), 0.02, atol=5e-4)


def test_no_girths_is_the_bare_body():
    body = load_body()
    np.testing.assert_array_equal(body.shaped(body.mean_shape).vertices, body.vertices)


@pytest.mark.parametrize("girth", range(NUM_GIRTHS))
def test_every_girth_moves_both_sides_of_the_body(girth: int):
    body = load_body()
    moved = body.girth_basis[:, girth] > 0.2
    left, right = moved[body.vertices[:, 0] > 0.01].sum(), moved[body.vertices[:, 0] < -0.01].sum()
    assert min(left, right) > 20
    assert left == pytest.approx(right, rel=0.1)
