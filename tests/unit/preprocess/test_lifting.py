"""A body fitted to 2D keypoints alone shows those keypoints again."""

import numpy as np
import pytest

from dpscale.body.camera import project
from dpscale.body.fit import fit_body
from dpscale.body.fit_skeleton import LANDMARK_OF_KEYPOINT
from dpscale.body.parametric import load_body
from dpscale.body.rendered import render_performer
from dpscale.data.types import InputError
from dpscale.preprocess.lifting import lifted


def test_the_fitted_body_falls_on_the_keypoints():
    clip, body = render_performer(1_000_006, "walk", 8, 10.0, 128, 1, yaw=0.2, with_flow=False), load_body()
    track = lifted("walk", clip.pose.keypoints)
    assert track.found.all()
    shape, motion = fit_body(track.landmarks, track.world, 200.0, (64.0, 64.0), 120, body)
    vertices = body.skin(body.shaped(shape), motion.rotations.astype(float), motion.root.astype(float))
    seen = project(body.keypoints(vertices), motion.focal_px, motion.center_px)[0]
    miss = np.linalg.norm(seen - clip.pose.keypoints[..., :2], axis=-1)[:, 2:14]
    assert np.median(miss) < 0.03 * 128


def test_left_and_right_say_which_side_faces_the_camera():
    keypoints = render_performer(1_000_006, "walk", 2, 10.0, 96, 1, yaw=0.0, with_flow=False).pose.keypoints
    facing, away = lifted("walk", keypoints), lifted("walk", keypoints * [-1, 1, 1] + [96, 0, 0])
    left, right = 11, 12
    assert (facing.world[:, left, 0] > facing.world[:, right, 0]).all()
    assert (away.world[:, left, 0] < away.world[:, right, 0]).all()


def test_landmarks_cover_every_keypoint_the_fit_uses():
    track = lifted("x", np.concatenate([np.random.default_rng(0).uniform(0, 90, (3, 18, 2)), np.ones((3, 18, 1))], -1))
    used = [k for name, k in LANDMARK_OF_KEYPOINT.items() if not name.endswith(("heel", "toe"))]
    assert (track.landmarks[:, used, 2] > 0).all()


def test_hidden_joints_are_interpolated_and_hidden_hips_refused():
    keypoints = np.concatenate([np.random.default_rng(1).uniform(0, 90, (3, 18, 2)), np.ones((3, 18, 1))], -1)
    keypoints[1, 3] = 0
    track = lifted("x", keypoints)
    np.testing.assert_allclose(track.landmarks[1, 14, :2], (keypoints[0, 3, :2] + keypoints[2, 3, :2]) / 2)
    assert track.landmarks[1, 14, 2] == 0.05
    keypoints[:, 8, 2] = 0
    with pytest.raises(InputError, match=r"dance.mp4: shoulders or hips are never seen"):
        lifted("dance.mp4", keypoints)
