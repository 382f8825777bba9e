from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dpscale.data.types import InputError
from dpscale.search.rule import Complexity, Rule, fit, leave_one_out, read_rule, write_rule
from tests.unit.joint.small_video import NUM_FRAMES, SIZE


def turning(degrees: float) -> np.ndarray:
    angles = np.radians(np.linspace(0, degrees, NUM_FRAMES))
    cos, sin, zero, one = np.cos(angles), np.sin(angles), np.zeros(NUM_FRAMES), np.ones(NUM_FRAMES)
    about_y = np.stack([np.stack([cos, zero, sin], -1), np.stack([zero, one, zero], -1), np.stack([-sin, zero, cos], -1)], 1)
    return about_y[:, None].astype(np.float32)


@pytest.mark.parametrize("degrees", [0.0, 50.0, 300.0])
def test_complexity_is_speed_and_turn(degrees: float) -> None:
    """Keypoints move 0.4 px a frame; one that is not seen leaps. The turn may pass the back."""
    keypoints = np.zeros((NUM_FRAMES, 18, 3), np.float32)
    keypoints[:, :, 0], keypoints[:, :, 2] = 0.4 * np.arange(NUM_FRAMES)[:, None], 1
    keypoints[::2, 0], keypoints[:, 0, 2] = 100, 0.1
    found = Complexity.of(keypoints, turning(degrees), SIZE, fps=30.0)
    assert found.num_frames == NUM_FRAMES
    assert found.keypoint_speed == pytest.approx(0.4 / SIZE * 30, rel=1e-5)
    assert found.rotation_range == pytest.approx(degrees, abs=1e-3)


def videos(count: int) -> list[Complexity]:
    rng = np.random.default_rng(3)
    rows = zip(rng.integers(20, 400, count), rng.uniform(0, 1, count), rng.uniform(0, 180, count), strict=True)
    return [Complexity(int(n), float(s), float(r)) for n, s, r in rows]


def test_a_rule_finds_what_the_interval_depends_on() -> None:
    found = videos(40)
    intervals = [round(2 ** (6 + 2 * one.keypoint_speed)) for one in found]
    rule = fit(found, intervals, steps=1000)
    assert rule.weights[1] > 5 * max(abs(rule.weights[0]), abs(rule.weights[2]))
    error = leave_one_out(found, intervals)
    assert error.rule < 0.1
    assert error.mean > 0.4


def test_a_rule_stays_between_the_intervals_that_it_has_seen() -> None:
    rule = fit(videos(4), [100, 200, 400, 400], steps=400)
    assert 100 <= rule.interval(Complexity(1_000_000, 50_000.0, 720.0)) <= 400
    assert 100 <= rule.interval(Complexity(2, 0.0, 0.0)) <= 400


def test_equal_videos_give_their_mean() -> None:
    assert fit([Complexity(100, 0.1, 5.0)] * 3, [100, 200, 400], steps=400).interval(Complexity(100, 0.1, 5.0)) == 200


def test_too_few_videos_make_no_rule(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs 3 videos"):
        leave_one_out(videos(2), [100, 200])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "holds no rule"),
        ("{", "holds no rule"),
        ("[1]", "holds no rule"),
        ("{}", r"holds no rule \(KeyError: 'schema'\)"),
        ('{"schema": 7, "rule": {}}', "has schema 7, this version reads 1: run the search again"),
        ('{"schema": 1, "rule": {"mean": [0, 0, 0]}}', "holds no rule .6 of its values are wrong"),
        (b"\xff\xfe", "holds no rule"),
    ],
)
def test_what_is_no_rule_is_refused_with_its_name(tmp_path: Path, text: str | bytes | None, message: str) -> None:
    path = tmp_path / "rule.json"
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError, match=rf"rule\.json: {message}"):
        read_rule(path)


def test_a_rule_is_read_back(tmp_path: Path) -> None:
    found = dict(zip("abcd", videos(4), strict=True))
    rule = write_rule(tmp_path / "rule.json", found, {"a": 100, "b": 200, "c": 400, "d": 400}, steps=2000)
    assert read_rule(tmp_path / "rule.json") == rule
    assert isinstance(rule, Rule)
    assert rule.steps == 2000
