"""IUV, flow and keypoints of a moving body against the renderer's exact truth, and against geometry."""

from dataclasses import replace

import numpy as np
import pytest

from dpscale.body.parametric import load_body
from dpscale.body.rendered import person, render_performer
from dpscale.preprocess.mesh import mesh_frames
from dpscale.preprocess.surface import pose_of_body

SEED = 1_000_002


@pytest.fixture(scope="module")
def truth():
    return render_performer(SEED, "dance_a", 4, 15.0, 96, 1).pose


def test_equals_the_renderers_truth(truth):
    pose = pose_of_body(load_body(), truth.shape, truth.motion, 96, surface=person(SEED).dressed.vertices)
    np.testing.assert_array_equal(pose.iuv, truth.iuv)
    np.testing.assert_array_equal(pose.flow_valid, truth.flow_valid)
    np.testing.assert_array_equal(pose.flow, truth.flow.astype(np.float16))
    np.testing.assert_allclose(pose.keypoints, truth.keypoints, atol=1e-3)
    assert not pose.flow_valid[-1].any()
    assert not pose.flow[-1].any()


def test_a_shifted_camera_shifts_every_pixel_alike(truth):
    still = replace(truth.motion, rotations=truth.motion.rotations[[0, 0]], root=truth.motion.root[[0, 0]])
    pose = pose_of_body(load_body(), truth.shape, still, 96)
    assert np.abs(pose.flow).max() < 1e-6
    assert pose.flow_valid[0].sum() > 0.95 * (pose.iuv[0, ..., 0] > 0).sum()


def test_a_body_that_walks_away_flows_inwards(truth):
    away = replace(truth.motion, rotations=truth.motion.rotations[[0, 0]], root=truth.motion.root[[0, 0]] + [[0, 0, 0], [0, 0, 0.3]])
    pose = pose_of_body(load_body(), truth.shape, away, 96)
    here = np.stack(np.meshgrid(np.arange(96) + 0.5, np.arange(96) + 0.5), -1)
    depth = next(iter(mesh_frames(load_body(), load_body().shaped(truth.shape), away, 96))).raster.depth
    center = np.array(away.center_px)
    valid = pose.flow_valid[0]
    shrink = (depth[valid] / (depth[valid] + 0.3))[:, None]
    exact = ((here[valid] - center) * shrink + center - here[valid]) / 96
    np.testing.assert_allclose(pose.flow[0][valid], exact, atol=1e-4)  # float16 of a few px


def test_given_keypoints_are_kept(truth):
    points = np.random.default_rng(0).uniform(0, 96, (4, 18, 3)).astype(np.float32)
    np.testing.assert_array_equal(pose_of_body(load_body(), truth.shape, truth.motion, 96, points).keypoints, points)
