"""What a trial is judged by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from dpscale.config.schema import ObjectiveConfig
from dpscale.data.types import InputError
from dpscale.evaluate.frame_metrics import dilated, psnr_body, warp_error
from dpscale.evaluate.study import Case


@dataclass(frozen=True)
class Judged:
    quality: float
    """psnr_body - warp_weight * warp_error."""
    psnr_body: float
    """dB, mean over the held-out frames in which the body is seen."""
    warp_error: float
    """Grey levels; 0 where no flow is known."""


def judge(frames: UInt8[np.ndarray, "N H W 3"], case: Case, objective: ObjectiveConfig, body_dilation_px: int) -> Judged:
    """Scores frames against the held-out ones. Raises InputError where the body is in none of them."""
    if case.truth is None:
        raise InputError("a search needs held-out frames to compare with: only videos with a drive of kind 'self' have them")
    on_body = psnr_body(frames, case.truth, dilated(case.pose.iuv[..., 0] > 0, body_dilation_px))
    if not np.isfinite(on_body).any():
        raise InputError("the body is in none of the held-out frames: no quality can be measured; take another part of the video")
    psnr, warp = float(np.nanmean(on_body)), warp_error(frames, case.pose.flow, case.pose.flow_valid)
    warp = warp if np.isfinite(warp) else 0.0
    return Judged(psnr - objective.warp_weight * warp, psnr, warp)
