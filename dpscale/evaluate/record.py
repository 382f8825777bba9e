"""The record of one video in its metrics file, and what its numbers are called."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dpscale.config.sources import VideoConfig

if TYPE_CHECKING:  # readers of records need none of what makes them
    from dpscale.evaluate.study import Case, Study


@dataclass(frozen=True)
class Metric:
    key: str
    label: str
    unit: str
    better: Literal["higher", "lower"]
    meaning: str


METRICS = (
    Metric("psnr", "PSNR", "dB", "higher", "peak signal-to-noise ratio, whole picture"),
    Metric("psnr_body", "PSNR body", "dB", "higher", "peak signal-to-noise ratio on the person"),
    Metric("ssim", "SSIM", "", "higher", "structural similarity of the grey pictures, 7 x 7 window"),
    Metric("l1", "L1", "", "lower", "mean absolute error in grey levels / (H W), as printed tables give it"),
    Metric("mae", "MAE", "levels", "lower", "mean absolute error in grey levels, 0 to 255"),
    Metric(
        "warp_error",
        "Warp error",
        "levels",
        "lower",
        "change of a surface point's colour from frame to frame, along the human flow, 0 to 255; a blurred video has little too",
    ),
    Metric("keypoint_error_px", "Keypoint error", "px", "lower", "distance of the detected from the driving keypoints"),
    Metric("keypoint_detected", "Detected", "of frames", "higher", "part of the frames in which a person was found"),
)

METHODS = {
    "ivr_opt": "the result",
    "wo_opt": "w/o Opt. (first pass)",
    "warped": "Training frames warped to the pose",
    "nearest_pose": "Training frame with the nearest pose",
    "mean_frame": "Mean of the training frames",
}
"""Methods and what a reader calls them, the result first."""

RESULTS = {"ivr": "IVR Opt.", "none": "w/o Opt.", "image": "Image Opt.", "noisy_image": "Noisy-Image Opt."}
"""What the result is by, by `joint.method`."""


def read_record(path: Path) -> dict[str, Any] | None:
    """A metrics file, or None if there is none. Values that JSON cannot hold (NaN) are None."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def method_name(record: Mapping[str, Any], key: str) -> str:
    """What a reader calls a method of a video's metrics."""
    return f"{RESULTS[record.get('joint_method', 'ivr')]} ({METHODS[key]})" if key == "ivr_opt" else METHODS[key]


def record_of(video: VideoConfig, joint_method: str, num_train: int, case: Case, scores: Study, fingerprint: str) -> dict[str, Any]:
    height, width = case.pose.iuv.shape[1:3]
    return {
        "performer": video.performer,
        "drive": video.drive,
        "joint_method": joint_method,
        "has_truth": case.truth is not None,
        "num_frames": len(case.pose),
        "num_train": num_train,
        "height_px": height,
        "width_px": width,
        "fps": case.fps,
        "methods": {method: json_numbers(values) for method, values in scores.methods.items()},
        "floor": json_numbers(scores.floor),
        "fingerprint": fingerprint,
    }


def json_numbers(values: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
