from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dpscale.data.types import InputError
from dpscale.evaluate.record import METHODS, METRICS
from dpscale.evaluate.study import case_of, mean_frame, nearest_pose, nearest_pose_index, study
from tests.unit.evaluate.clips import SIZE, driving_clip, main_clip


def test_self_driving_is_judged_by_the_held_out_tail():
    clip = main_clip(15, 12)
    case = case_of(clip, None)
    assert len(case.pose) == 3
    np.testing.assert_array_equal(case.truth, clip.frames[12:])
    np.testing.assert_array_equal(case.pose.flow, clip.pose.flow[12:])
    assert len(case.pose.motion.root) == 3
    assert len(case.known.frames) == len(case.known.keypoints) == 12


def test_another_drive_has_no_truth():
    case = case_of(main_clip(), driving_clip(5))
    assert case.truth is None
    assert case.fps == 12.0
    assert len(case.pose) == 5


def test_clips_that_cannot_be_judged_say_why():
    with pytest.raises(InputError, match="train_fraction"):
        case_of(main_clip(12, 12), None)
    with pytest.raises(InputError, match="no frames"):
        case_of(replace(main_clip(), frames=None), None)


def test_mean_frame_is_the_rounded_mean_of_the_training_frames():
    case = case_of(main_clip(), None)
    frames = mean_frame(case)
    assert frames.shape == case.truth.shape
    slow = np.rint(np.mean([f.astype(float) for f in case.known.frames], axis=0))
    np.testing.assert_array_equal(frames[1], slow)


def test_nearest_pose_finds_the_frame_with_the_same_pose():
    rng = np.random.default_rng(0)
    train = np.concatenate([rng.uniform(0, SIZE, (20, 18, 2)), np.ones((20, 18, 1))], -1)
    wanted = [3, 17, 3, 0]
    driving = train[wanted] + np.array([0.1, -0.1, 0])
    assert nearest_pose_index(train, driving, (SIZE, SIZE)).tolist() == wanted


def test_nearest_pose_ignores_points_that_nobody_saw():
    train = np.zeros((2, 18, 3))
    train[..., 2] = 1
    train[0, 0, :2] = 100  # frame 0 differs in an unseen point only, frame 1 in a seen one
    train[1, 1, :2] = 5
    driving = np.zeros((1, 18, 3))
    driving[..., 2] = 1
    driving[0, 0, 2] = 0
    assert nearest_pose_index(train, driving, (SIZE, SIZE)).tolist() == [0]


def test_nearest_pose_of_the_case_are_training_frames():
    case = case_of(main_clip(15, 12), None)
    np.testing.assert_array_equal(nearest_pose(case), case.known.frames[[11, 11, 11]])


def detect_nothing(frames):
    return np.full((len(frames), 18, 3), np.nan)


def test_the_truth_as_a_method_is_perfect_and_every_metric_is_there():
    case = case_of(main_clip(), None)
    made = dict.fromkeys(METHODS, case.truth) | {"mean_frame": mean_frame(case)}
    result = study(case, made, 2, lambda frames: case.pose.keypoints)
    assert set(result.methods) == set(METHODS)
    assert set(result.methods["ivr_opt"]) == {metric.key for metric in METRICS}
    perfect = {"psnr": 100, "psnr_body": 100, "ssim": 1, "l1": 0, "mae": 0, "warp_error": 0, "keypoint_error_px": 0, "keypoint_detected": 1}
    assert result.methods["ivr_opt"] == pytest.approx(perfect)
    assert result.floor == pytest.approx({"warp_error": 0, "keypoint_error_px": 0, "keypoint_detected": 1})
    worse = result.methods["mean_frame"]
    assert worse["psnr_body"] < worse["psnr"] < 100  # what is wrong is on the body


def test_without_truth_or_detector_only_what_needs_neither_is_measured():
    case = case_of(main_clip(), driving_clip())
    made = {"ivr_opt": np.zeros((5, SIZE, SIZE, 3), np.uint8)}
    assert set(study(case, made, 2, None).methods["ivr_opt"]) == {"warp_error"}
    unseen = study(case, made, 2, detect_nothing).methods["ivr_opt"]
    assert unseen["keypoint_detected"] == 0
    assert np.isnan(unseen["keypoint_error_px"])


def test_frames_of_another_length_are_refused():
    case = case_of(main_clip(), driving_clip(5))
    with pytest.raises(InputError, match="run optimize again"):
        study(case, {"ivr_opt": np.zeros((4, SIZE, SIZE, 3), np.uint8)}, 2, None)
