"""One video, every method, every metric."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from dpscale.data.types import Clip, InputError, Pose, keypoint_distance
from dpscale.diffusion.reference import KnownFrames, known_frames, reference_pictures
from dpscale.evaluate import frame_metrics
from dpscale.evaluate.frame_metrics import KeypointDetector


@dataclass(frozen=True)
class Case:
    """What a video is judged by."""

    pose: Pose
    """Of the driving sequence, N frames."""
    truth: UInt8[np.ndarray, "N H W 3"] | None
    """The held-out frames, where the drive is the performer's own video."""
    known: KnownFrames
    """The training frames."""
    fps: float


@dataclass(frozen=True)
class Study:
    methods: dict[str, dict[str, float]]
    """Method -> metric -> value. Without truth there are no metrics that compare with it."""
    floor: dict[str, float]
    """The metrics that need no truth, of the truth itself: what light, occlusion and the errors of flow and detector leave.
    Not a bound: blur lowers the warping error below it."""


def case_of(main: Clip, driving: Clip | None) -> Case:
    """The case of the performer's clip `main` driven by `driving`, or by its own held-out part.

    Raises InputError if `main` has no frames, or none held out where they are needed."""
    if main.frames is None:
        raise InputError(f"clip main of {main.performer} holds no frames; run preprocess again")
    train = known_frames(main)
    if driving is not None:
        return Case(driving.pose, None, train, driving.fps)
    if main.num_train >= len(main):
        raise InputError(f"{main.performer} has no held-out frames ({len(main)} in all); lower preprocess.train_fraction")
    return Case(main.pose.at(slice(main.num_train, None)), main.frames[main.num_train :], train, main.fps)


def study(case: Case, made: dict[str, UInt8[np.ndarray, "N H W 3"]], body_dilation_px: int, detect: KeypointDetector | None) -> Study:
    """Scores the frames of each method in `made`. Without `detect` there are no keypoint metrics.

    Raises InputError where a method's frames do not have the driving sequence's length or size."""
    expected = (*case.pose.iuv.shape[:3], 3)
    for method, frames in made.items():
        if frames.shape != expected:
            raise InputError(f"{method} has shape {frames.shape}, its driving sequence {expected}: settings differ between them; run optimize again")
    methods = {}
    for method, frames in made.items():
        compared = {} if case.truth is None else _against_truth(frames, case.truth, case.pose, body_dilation_px)
        methods[method] = compared | _by_itself(frames, case.pose, detect)
    return Study(methods, {} if case.truth is None else _by_itself(case.truth, case.pose, detect))


def mean_frame(case: Case) -> UInt8[np.ndarray, "N H W 3"]:
    """Baseline: the mean training frame, standing still."""
    mean = case.known.frames.mean(axis=0, dtype=np.float64)
    return np.repeat(np.rint(mean).astype(np.uint8)[None], len(case.pose), axis=0)


def nearest_pose(case: Case) -> UInt8[np.ndarray, "N H W 3"]:
    """Baseline: for each driving frame the training frame with the nearest pose."""
    return case.known.frames[nearest_pose_index(case.known.keypoints, case.pose.keypoints, case.pose.iuv.shape[1:3])]


def warped(case: Case) -> UInt8[np.ndarray, "N H W 3"]:
    """Baseline: training frames carried into each driving pose, as a denoiser with references is given them."""
    return reference_pictures(case.known, case.pose.keypoints, case.pose.iuv).warped


def nearest_pose_index(train: Float[np.ndarray, "T 18 3"], driving: Float[np.ndarray, "N 18 3"], size: tuple[int, int]) -> Int[np.ndarray, " N"]:
    """Index of the training frame whose pose is nearest (data.types.keypoint_distance); the first of equals."""
    return np.argmin(keypoint_distance(train, driving, size), axis=1)


def _against_truth(frames: UInt8[np.ndarray, "N H W 3"], truth: UInt8[np.ndarray, "N H W 3"], pose: Pose, body_dilation_px: int) -> dict[str, float]:
    body = frame_metrics.dilated(pose.iuv[..., 0] > 0, body_dilation_px)
    on_body = frame_metrics.psnr_body(frames, truth, body)
    return {
        "psnr": float(frame_metrics.psnr(frames, truth).mean()),
        "psnr_body": float(np.nanmean(on_body)) if np.isfinite(on_body).any() else float("nan"),
        "ssim": float(frame_metrics.ssim(frames, truth).mean()),
        "l1": float(frame_metrics.l1(frames, truth).mean()),
        "mae": float(frame_metrics.mae(frames, truth).mean()),
    }


def _by_itself(frames: UInt8[np.ndarray, "N H W 3"], pose: Pose, detect: KeypointDetector | None) -> dict[str, float]:
    values = {"warp_error": frame_metrics.warp_error(frames, pose.flow, pose.flow_valid)}
    if detect is not None:
        score = frame_metrics.keypoint_score(detect(frames), pose.keypoints)
        values |= {"keypoint_error_px": score.error_px, "keypoint_detected": score.detected}
    return values
