"""Human flow against a mesh whose movement is known: a grid of quads in front of the camera."""

from dataclasses import replace

import numpy as np
from numpy.testing import assert_allclose

from dpscale.body.parametric import load_body
from dpscale.body.surface_maps import iuv_map, mesh_flow, rasterise_body

SIZE, FOCAL, CENTER = 40, 40.0, (20.0, 20.0)


def _plate(z, x0=-0.3, x1=0.3):
    """Two triangles facing the camera at depth z."""
    return np.array([[x0, -0.3, z], [x1, -0.3, z], [x1, 0.3, z], [x0, 0.3, z]])


def _model(num_plates):
    faces = np.concatenate([np.array([[0, 2, 1], [0, 3, 2]]) + 4 * k for k in range(num_plates)])
    uv = np.tile(np.array([[0.0, 0], [1, 1], [1, 0]]), (len(faces), 1, 1))
    return replace(load_body(), faces=faces, face_part=np.full(len(faces), 7), face_uv=uv)


def test_a_translation_gives_that_flow_everywhere():
    model, now = _model(1), _plate(1.0)
    later = now + np.array([0.05, -0.1, 0])
    here, there = (rasterise_body(model, v, FOCAL, CENTER, SIZE, SIZE) for v in (now, later))
    flow = mesh_flow(model.faces, here, later, there, FOCAL, CENTER)
    inner = np.zeros((SIZE, SIZE), bool)
    inner[10:30, 10:30] = True
    assert flow.valid[inner].all()
    assert_allclose(flow.offset[inner], np.tile([2 / SIZE, -4 / SIZE], (400, 1)), atol=1e-9)
    assert not flow.valid[here.face < 0].any()
    assert (flow.offset[~flow.valid] == 0).all()


def test_a_point_hidden_in_the_next_frame_is_not_valid():
    model = _model(2)
    now = np.concatenate([_plate(2.0), _plate(1.0, 0.5, 0.9)])
    later = np.concatenate([_plate(2.0), _plate(1.0, -0.05, 0.45)])
    here, there = (rasterise_body(model, v, FOCAL, CENTER, SIZE, SIZE) for v in (now, later))
    flow = mesh_flow(model.faces, here, later, there, FOCAL, CENTER)
    assert flow.valid[20, 16]
    assert here.face[20, 22] in (0, 1)
    assert not flow.valid[20, 22]


def test_iuv_holds_part_and_interpolated_charts():
    model = _model(1)
    iuv = iuv_map(model, rasterise_body(model, _plate(1.0), FOCAL, CENTER, SIZE, SIZE))
    assert set(np.unique(iuv[..., 0])) == {0, 7}
    assert iuv[iuv[..., 0] == 0].max() == 0
