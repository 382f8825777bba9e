from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dpscale.config.schema import ObjectiveConfig
from dpscale.data.types import InputError
from dpscale.diffusion.reference import KnownFrames
from dpscale.evaluate.study import Case
from dpscale.search.objective import judge
from tests.unit.joint.small_video import NUM_FRAMES, SIZE, small_pose

TRUTH = np.random.default_rng(5).integers(50, 200, (NUM_FRAMES, SIZE, SIZE, 3), dtype=np.uint8)


def case(flow: bool = True) -> Case:
    pose = small_pose()
    iuv = np.zeros_like(pose.iuv)
    iuv[:, 2:5, 2:5, 0] = 1
    still = replace(pose, iuv=iuv, flow=np.zeros_like(pose.flow), flow_valid=np.full_like(pose.flow_valid, flow))
    known = KnownFrames(TRUTH[:1], np.zeros((1, SIZE, SIZE, 3), np.uint8), np.zeros((1, 18, 3), np.float32))
    return Case(still, TRUTH, known, 30.0)


def test_quality_is_psnr_on_the_body_less_the_weighted_warping_error() -> None:
    """Four grey levels off on the body: 10 log10(255^2 / 16) dB. Off the body nothing counts but the change from frame to frame."""
    made = np.full_like(TRUTH, 100)
    made[:, 2:5, 2:5] = TRUTH[:, 2:5, 2:5] + 4
    found = judge(made, case(), ObjectiveConfig(warp_weight=0.5), 0)
    assert found.psnr_body == pytest.approx(10 * np.log10(255**2 / 16))
    assert found.warp_error == pytest.approx(np.abs(np.diff(made.astype(float), axis=0)).mean())
    assert found.quality == pytest.approx(found.psnr_body - 0.5 * found.warp_error)


def test_without_flow_the_psnr_alone_counts() -> None:
    found = judge(TRUTH, case(flow=False), ObjectiveConfig(), 0)
    assert (found.quality, found.warp_error) == (100.0, 0.0)


def test_what_cannot_be_judged_is_told() -> None:
    empty = case()
    with pytest.raises(InputError, match="the body is in none of the held-out frames"):
        judge(TRUTH, replace(empty, pose=replace(empty.pose, iuv=np.zeros_like(empty.pose.iuv))), ObjectiveConfig(), 0)
    with pytest.raises(InputError, match="kind 'self'"):
        judge(TRUTH, replace(empty, truth=None), ObjectiveConfig(), 0)
