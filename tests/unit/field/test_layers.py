"""Who is seen where: weights of canonical images and the soft mask of the body, against obvious twins."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from dpscale.config.field import BackgroundConfig, CanonicalsConfig
from dpscale.field.layers import Layers, canonical_weights, key_poses, posture, soft_body
from tests.unit.field.small_field import LAYERED, SMALL
from tests.unit.joint.small_video import small_pose

SIZE = (100, 50)
"""Height, width."""


def keypoints(*poses: np.ndarray, confidence: float = 1.0) -> np.ndarray:
    return np.stack([np.concatenate([pose, np.full((18, 1), confidence)], 1) for pose in poses]).astype(np.float32)


def two_poses(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 50, (18, 2)), rng.uniform(0, 50, (18, 2))


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean distance of keypoints of confidence 1, in parts of the picture, with each body about its own centre."""
    total = 0.0
    for a, b in zip(one[:, :2] - one[:, :2].mean(0), other[:, :2] - other[:, :2].mean(0), strict=True):
        total += math.hypot((a[0] - b[0]) / SIZE[1], (a[1] - b[1]) / SIZE[0])
    return total / 18


def test_one_canonical_image_shows_everything() -> None:
    np.testing.assert_array_equal(canonical_weights(keypoints(*two_poses()), SIZE, CanonicalsConfig()), np.ones((2, 1)))


def test_weights_are_the_formula() -> None:
    one, other = two_poses()
    points = keypoints(*[one + (other - one) * part for part in (0, 0, 0, 0.35, 0.5, 0.8, 1, 1, 1)])
    weights = canonical_weights(points, SIZE, CanonicalsConfig(count=2, softness=0.5, cutoff=0.0))
    keys = points[0], points[-1]
    for row, pose in zip(weights, points, strict=True):
        powers = [math.exp(-distance(pose, key) / (0.5 * distance(*keys))) for key in keys]
        assert row == pytest.approx([power / sum(powers) for power in powers], rel=1e-4)
    assert weights[4] == pytest.approx([0.5, 0.5], abs=1e-3)


def test_small_weights_are_left_out_and_the_rest_is_whole() -> None:
    one, other = two_poses()
    points = keypoints(one, one, one, other, other, other, one + 0.5 * (other - one))
    weights = canonical_weights(points, SIZE, CanonicalsConfig(count=2, softness=0.1, cutoff=0.02))
    np.testing.assert_array_equal(weights[:6], np.repeat([[1.0, 0.0], [0.0, 1.0]], 3, axis=0))
    assert (weights[6] > 0.4).all()
    np.testing.assert_allclose(weights.sum(1), 1)


def test_walking_across_the_picture_is_no_other_pose() -> None:
    points = keypoints(*(pose + np.array(move) for pose in two_poses() for move in ([0, 0], [20, 3], [-9, -9])))
    weights = canonical_weights(points, SIZE, CanonicalsConfig(count=2))
    np.testing.assert_allclose(weights, np.repeat([[1.0, 0.0], [0.0, 1.0]], 3, axis=0), atol=1e-6)


def test_equal_poses_belong_to_all_images_alike() -> None:
    weights = canonical_weights(keypoints(*[two_poses()[0]] * 5), SIZE, CanonicalsConfig(count=3))
    np.testing.assert_allclose(weights, np.full((5, 3), 1 / 3))


def test_points_without_confidence_do_not_count() -> None:
    one, other = keypoints(*two_poses())
    one[5], other[5] = (1e4, -1e4, 0), (0, 0, 0)
    away = one.copy()
    away[5, :2] = 3
    np.testing.assert_allclose(posture(one[None])[0, :5], posture(away[None])[0, :5], atol=1e-2)
    weights = canonical_weights(np.stack([one, away, other, other]), SIZE, CanonicalsConfig(count=2))
    np.testing.assert_allclose(weights, [[1, 0], [1, 0], [0, 1], [0, 1]], atol=1e-3)


def test_key_poses_are_the_middles_of_clusters() -> None:
    """Three clusters of three poses along a line of postures; the middle one of each is nearest to the others."""
    start, end = two_poses()
    parts = [0.0, 0.04, 0.02, 0.5, 0.52, 0.54, 0.98, 1.0, 0.96]
    poses = posture(keypoints(*[start + (end - start) * part for part in parts]))
    np.testing.assert_array_equal(key_poses(poses, 3, SIZE), [2, 4, 6])


@pytest.mark.parametrize("seed", range(5))
def test_no_exchange_of_a_key_within_its_cluster_is_better(seed: int) -> None:
    """What a k-medoids result is, checked pair by pair."""
    rng = np.random.default_rng(seed)
    points = keypoints(*rng.uniform(0, 50, (30, 18, 2)))
    keys = key_poses(posture(points), 4, SIZE)
    assert len(set(keys)) == 4
    away = np.array([[distance(a, b) for b in points] for a in points])
    nearest = away[:, keys].argmin(1)
    for k, key in enumerate(keys):
        members = np.flatnonzero(nearest == k)
        assert away[np.ix_(members, members)].sum(1).min() >= away[members, key].sum() - 1e-5


def test_key_poses_of_a_long_video_come_from_all_of_it() -> None:
    one, other = two_poses()
    points = posture(keypoints(*[one] * 900, *[other] * 100))
    first, second = key_poses(points, 2, SIZE)
    assert first < 900 <= second


def test_the_mask_is_whole_near_the_body_and_falls_over_the_edge() -> None:
    """Against the distance to every body pixel."""
    body = np.random.default_rng(0).random((2, 20, 30)) < 0.02
    config = BackgroundConfig(layer=True, margin=0.1, edge=0.15)
    soft = soft_body(body[..., None] * np.array([7, 200, 0], np.uint8), config)
    for n, y, x in np.ndindex(*soft.shape):
        away = min(math.hypot(y - r, x - c) for r, c in np.argwhere(body[n]))
        assert abs(int(soft[n, y, x]) - 255 * min(1.0, max(0.0, (2 + 3 - away) / 3))) <= 0.5
    assert {0, 255} < set(soft.flatten())


def test_a_frame_without_a_body_is_all_background() -> None:
    assert not soft_body(np.zeros((1, 8, 8, 3), np.uint8), BackgroundConfig(layer=True)).any()


def test_layers_follow_the_settings() -> None:
    pose = small_pose()
    plain, layered = Layers.of(SMALL, pose), Layers.of(LAYERED, pose)
    assert plain.body is None
    assert plain.weights.shape == (len(pose), 1)
    assert layered.weights.shape == (len(pose), 2)
    assert (layered.body[pose.iuv[..., 0] > 0] == 255).all()
    moved = Layers.of(LAYERED, replace(pose, iuv=pose.iuv[:, ::-1]))
    np.testing.assert_array_equal(moved.body, layered.body[:, ::-1])
