from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion

from dpscale.body.rendered import render_performer
from dpscale.data.types import keypoint_distance
from dpscale.diffusion.reference import KnownFrames, apart, reference_pictures


@pytest.fixture(scope="module")
def clip():
    return render_performer(1_000_010, "dance_b", num_frames=12, fps=8.0, size=96, with_flow=False)


def _known(clip, frames) -> KnownFrames:
    return KnownFrames(clip.frames[frames], clip.pose.iuv[frames], clip.pose.keypoints[frames])


def _psnr(made: np.ndarray, truth: np.ndarray, where: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(made.astype(float) - truth)[where].mean()))


def test_a_warp_is_nearer_the_truth_than_the_known_frame_with_the_nearest_pose(clip):
    known, new = _known(clip, slice(0, 8)), clip.pose.at(slice(8, None))
    truth, body = clip.frames[8:], new.iuv[..., 0] > 0
    made = reference_pictures(known, new.keypoints, new.iuv)
    nearest = known.frames[keypoint_distance(known.keypoints, new.keypoints, (96, 96)).argmin(1)]
    assert _psnr(made.warped, truth, body) > _psnr(nearest, truth, body) + 3


def test_a_known_pose_gives_the_known_body_back(clip):
    known = _known(clip, slice(0, 8))
    made = reference_pictures(known, known.keypoints, known.iuv)
    body = known.iuv[..., 0] > 0
    miss = np.abs(made.warped.astype(int) - known.frames)[body]
    assert np.mean(miss <= 8) > 0.95  # neighbours on the surface weigh a little, and a few pixels share (part, u, v) with another


def test_pixels_come_from_usable_frames_alone(clip):
    frames, usable = clip.frames.copy(), np.ones((12, 12), bool)
    frames[3] = [255, 0, 255]
    usable[:, 3] = False
    made = reference_pictures(KnownFrames(frames, clip.pose.iuv, clip.pose.keypoints), clip.pose.keypoints, clip.pose.iuv, usable)
    assert not (made.warped[clip.pose.iuv[..., 0] > 0] == [255, 0, 255]).all(-1).any()
    with pytest.raises(ValueError, match="no usable"):
        reference_pictures(_known(clip, slice(0, 2)), clip.pose.keypoints[:1], clip.pose.iuv[:1], np.zeros((1, 2), bool))


def test_the_background_is_what_stays_when_the_body_moves():
    rng = np.random.default_rng(0)
    scene, iuv = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), np.zeros((2, 64, 64, 3), np.uint8)
    iuv[0, 10:40, 10:20, 0], iuv[1, 10:40, 40:50, 0] = 2, 2
    frames = np.where(iuv[..., :1] > 0, 0, scene).astype(np.uint8)
    made = reference_pictures(KnownFrames(frames, iuv, np.zeros((2, 18, 3), np.float32)), np.zeros((1, 18, 3), np.float32), iuv[:1])
    np.testing.assert_array_equal(made.background, scene)


def test_only_pixels_that_show_the_person_lend_colours_and_the_rest_is_background(clip):
    """A body fitted too wide: its outer pixels show the scene, and what they would lend is left out."""
    frames, mask = clip.frames[:4].copy(), np.zeros((4, 96, 96), np.uint8)
    narrow = binary_erosion(clip.pose.iuv[:4, ..., 0] > 0, np.ones((1, 3, 3), bool))
    mask[narrow] = 255
    frames[~narrow] = [255, 0, 255]
    known = KnownFrames(frames, clip.pose.iuv[:4], clip.pose.keypoints[:4], mask)
    made = reference_pictures(known, known.keypoints, known.iuv)
    body = known.iuv[..., 0] > 0
    assert (made.warped[body] == [255, 0, 255]).all(-1).mean() < 0.02
    assert (known.background[~binary_dilation(body.any(0), np.ones((9, 9)))] == [255, 0, 255]).all()


def test_where_the_person_always_stood_the_background_is_filled_from_around():
    frames, iuv = np.full((1, 64, 64, 3), 200, np.uint8), np.zeros((1, 64, 64, 3), np.uint8)
    iuv[0, 20:40, 20:40, 0] = 2
    frames[iuv[..., 0] > 0] = 0
    frames[0, :, 50:] = 100
    background = KnownFrames(frames, iuv, np.zeros((1, 18, 3), np.float32)).background
    assert background[20:40, 20:40].min() > 150
    np.testing.assert_array_equal(background[:, 55:], 100)


def test_a_moving_camera_leaves_the_first_frame_and_no_blur():
    rng = np.random.default_rng(1)
    wide = rng.integers(0, 256, (64, 100, 3), dtype=np.uint8)
    frames, iuv = np.stack([wide[:, n : n + 64] for n in range(0, 36, 6)]), np.zeros((6, 64, 64, 3), np.uint8)
    iuv[:, 20:30, 20:30, 0] = 2
    background = KnownFrames(frames, iuv, np.zeros((6, 18, 3), np.float32)).background
    np.testing.assert_array_equal(background[:, 40:], frames[0][:, 40:])


def test_without_a_body_the_background_is_all_there_is(clip):
    empty = np.zeros_like(clip.pose.iuv[:2])
    made = reference_pictures(_known(clip, slice(0, 4)), clip.pose.keypoints[:2], empty)
    np.testing.assert_array_equal(made.warped, np.stack([made.background] * 2))


@pytest.mark.parametrize(("num_frames", "gap"), [(1, 0), (1, 5), (2, 3), (10, 0), (10, 4), (10, 50)])
def test_no_frame_lends_to_its_neighbourhood(num_frames: int, gap: int):
    usable = apart(num_frames, gap)
    assert usable.any(1).all()
    if num_frames > 1:
        assert not usable.diagonal().any()
    for a, b in np.argwhere(usable):
        assert abs(a - b) > gap or abs(a - b) == max(a, num_frames - 1 - a)
