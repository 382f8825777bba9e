import numpy as np
import pytest
from numpy.testing import assert_allclose

from dpscale.body import rotations as rot
from dpscale.body.parametric import SCALE_SEGMENTS, load_body
from dpscale.data.types import OPENPOSE18, BodyShape


@pytest.fixture(scope="module")
def body():
    return load_body()


def _still(body, num_frames=1):
    return np.broadcast_to(np.eye(3), (num_frames, len(body.bone_names), 3, 3)).copy(), np.repeat(body.heads[:1], num_frames, 0)


def test_rest_pose_is_the_rest_surface(body):
    rotations, root = _still(body)
    assert_allclose(body.skin(body.shaped(body.mean_shape), rotations, root)[0], body.vertices, atol=2e-3)


def test_a_rotation_of_all_bones_moves_the_body_rigidly(body):
    rotations, root = _still(body)
    turn = rot.from_vector(np.array([0.2, 1.0, -0.4]))
    moved = body.skin(body.shaped(body.mean_shape), turn @ rotations, root @ turn.T + [1, 2, 3])[0]
    assert_allclose(moved, body.skin(body.shaped(body.mean_shape), rotations, root)[0] @ turn.T + [1, 2, 3], atol=1e-9)


def test_the_last_log_scale_scales_the_whole_body(body):
    log_scales = np.zeros(len(SCALE_SEGMENTS))
    log_scales[-1] = np.log(1.5)
    rotations, root = _still(body)
    normal, large = (body.skin(body.shaped(BodyShape(np.zeros(body.num_betas), s)), rotations, root)[0] for s in (np.zeros(9), log_scales))
    assert np.ptp(large[:, 2]) == pytest.approx(1.5 * np.ptp(normal[:, 2]), rel=1e-6)


def test_betas_change_the_body_and_keep_its_topology(body):
    shaped = body.shaped(BodyShape(np.eye(body.num_betas)[0] * 2, np.zeros(9)))
    assert shaped.vertices.shape == body.vertices.shape
    assert 0.8 < np.ptp(shaped.vertices[:, 2]) < 2.6
    assert np.abs(shaped.vertices - body.vertices).max() > 0.02


def test_keypoints_are_where_anatomy_says(body):
    points = dict(zip(OPENPOSE18, body.keypoints(body.vertices[None])[0], strict=True))
    assert points["nose"][2] > points["neck"][2] > points["left_hip"][2] > points["left_knee"][2] > points["left_ankle"][2]
    assert points["left_shoulder"][0] > points["right_shoulder"][0]
    assert points["nose"][1] < points["left_ear"][1]


def test_every_face_has_a_part_and_charts_in_range(body):
    assert set(np.unique(body.face_part)) == set(range(1, 25))
    assert body.face_uv.min() >= 0
    assert body.face_uv.max() <= 1
