from __future__ import annotations

import pytest

from benchmarks.ablation import METHODS, METRICS, WHOLE, WITHOUT_FLOW, summary

WORSE = {"psnr": -2.0, "psnr_body": -2.0, "ssim": -0.1}
"""What an ablated method loses; of all other metrics it has 1 more."""


def rows(offsets: dict[str, float]) -> list[dict[str, object]]:
    """Two performers, two seeds; a method is as much worse than the whole one as `offsets` says."""
    found = []
    for method in METHODS:
        for performer, level in (("ann", 10.0), ("ben", 14.0)):
            for seed in (0, 1):
                worse = {name: level + seed + WORSE.get(name, 1.0) * offsets.get(method, 1.0) for name in METRICS}
                found.append({"performer": performer, "seed": seed, "method": method} | worse)
    return found


def test_means_and_spread_are_over_performers_and_seeds() -> None:
    result = summary(rows({WHOLE: 0.0}))
    assert result["means"][WHOLE]["psnr"] == pytest.approx(12.5)
    assert result["means"]["Image Opt."]["psnr"] == pytest.approx(10.5)
    assert result["spread"][WHOLE]["l1"] == pytest.approx({"performers": 2.0, "seeds": 0.5})


@pytest.mark.parametrize(("offset", "best", "tied"), [(0.0, True, True), (1.01, False, True), (1.5, False, False)])
def test_the_whole_method_wins_ties_or_loses(offset: float, best: bool, tied: bool) -> None:
    result = summary(rows({WHOLE: offset}))
    assert result["ivr_best_warp_error"] is best
    assert result["ivr_best_or_tied_psnr"] is tied
    assert result["ivr_best_or_tied_l1"] is tied
    assert result["flow_improves_keypoints"] is best


def test_without_flow_keypoints_may_be_better() -> None:
    result = summary(rows({WHOLE: 0.5, WITHOUT_FLOW: 0.0}))
    assert result["flow_improves_keypoints"] is False
    assert result["flow_improves_keypoints_of"] == {"ann": False, "ben": False}
