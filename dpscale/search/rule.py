"""From the videos of a search to the refresh interval of a new one: ridge regression on length and pose complexity (S, C)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dpscale.config.schema import Config
from dpscale.data.checkpoint import write_json
from dpscale.data.layout import RunLayout
from dpscale.data.shards import read_clip
from dpscale.data.types import InputError, Pose
from dpscale.search.record import Chosen, Row
from dpscale.search.space import INTERVAL

MIN_VIDEOS = 3
"""With fewer, leaving one out leaves nothing to fit."""
RIDGE = 1.0
"""Penalty on squared weights of standardised features: with few videos a rule should stay near their mean."""
_CONFIDENT = 0.5


@dataclass(frozen=True)
class Complexity:
    """What the supplement says the interval depends on."""

    num_frames: int
    keypoint_speed: float
    """Mean over frames and confident keypoints, in picture heights a second."""
    rotation_range: float
    """Degrees that the body turns about the vertical between its two extremes."""

    @classmethod
    def of(cls, pose: Pose, fps: float) -> Complexity:
        points, height = pose.keypoints, pose.iuv.shape[1]
        seen = (points[1:, :, 2] >= _CONFIDENT) & (points[:-1, :, 2] >= _CONFIDENT)
        moved = np.linalg.norm(np.diff(points[..., :2], axis=0), axis=-1) / height
        speed = float(moved[seen].mean() * fps) if seen.any() else 0.0
        # Bone 0 is the root; its third axis points out of the body. Camera axes: x right, z forward.
        facing = pose.motion.rotations[:, 0, :, 2]
        heading = np.unwrap(np.arctan2(facing[:, 0], facing[:, 2]))
        return cls(len(pose), speed, float(np.degrees(np.ptp(heading))))

    @property
    def features(self) -> Float[np.ndarray, " 3"]:
        return np.array([np.log2(self.num_frames), self.keypoint_speed, self.rotation_range])


@dataclass(frozen=True)
class Rule:
    """log2(interval) as a linear function of standardised features."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    smallest: int
    largest: int
    """Intervals between which it was fitted; it predicts none outside."""

    def interval(self, complexity: Complexity) -> int:
        standard = (complexity.features - np.array(self.mean)) / np.array(self.scale)
        return int(np.clip(round(2 ** (self.bias + float(standard @ np.array(self.weights)))), self.smallest, self.largest))


def fit(complexities: Sequence[Complexity], intervals: Sequence[int]) -> Rule:
    x, y = np.stack([one.features for one in complexities]), np.log2(np.array(intervals, float))
    mean, spread = x.mean(axis=0), x.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    standard = (x - mean) / scale
    weights = np.linalg.solve(standard.T @ standard + RIDGE * np.eye(x.shape[1]), standard.T @ (y - y.mean()))
    return Rule(tuple(mean.tolist()), tuple(scale.tolist()), tuple(weights.tolist()), float(y.mean()), min(intervals), max(intervals))


@dataclass(frozen=True)
class LeftOut:
    """Each video's interval predicted from the others: mean absolute error in doublings."""

    rule: float
    mean: float
    """Of the others' geometric mean instead: a rule that is no better has learnt nothing."""


def leave_one_out(complexities: Sequence[Complexity], intervals: Sequence[int]) -> LeftOut:
    """Raises InputError with fewer than MIN_VIDEOS videos."""
    if len(intervals) < MIN_VIDEOS:
        raise InputError(f"a rule needs {MIN_VIDEOS} videos with a recommended interval or more, there are {len(intervals)}")
    truth, by_rule, by_mean = np.log2(np.array(intervals, float)), [], []
    for n in range(len(intervals)):
        others = [m for m in range(len(intervals)) if m != n]
        rule = fit([complexities[m] for m in others], [intervals[m] for m in others])
        by_rule.append(abs(np.log2(rule.interval(complexities[n])) - truth[n]))
        by_mean.append(abs(truth[others].mean() - truth[n]))
    return LeftOut(float(np.mean(by_rule)), float(np.mean(by_mean)))


def write_rule(path: Path, complexities: Mapping[str, Complexity], intervals: Mapping[str, int]) -> Rule:
    """Fits, measures and writes the rule, with the videos that it comes from. Raises InputError as leave_one_out does."""
    videos = sorted(intervals)
    x, y = [complexities[video] for video in videos], [intervals[video] for video in videos]
    error, rule = leave_one_out(x, y), fit(x, y)
    told = [{"video": video, **asdict(one), "interval": interval} for video, one, interval in zip(videos, x, y, strict=True)]
    write_json(path, {"rule": asdict(rule), "leave_one_out_doublings": asdict(error), "videos": told})
    return rule


def read_rule(path: Path) -> Rule:
    """Raises InputError that names the file."""
    try:
        told = json.loads(path.read_text())["rule"]
        return Rule(**{name: tuple(value) if isinstance(value, list) else value for name, value in told.items()})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: holds no rule ({error}); `dpscale search` of {MIN_VIDEOS} videos or more writes one") from error


def rule_of(config: Config, layout: RunLayout, rows: Sequence[Row], choice: Mapping[str, Chosen]) -> Path | None:
    """Writes search/rule.json from the recommended intervals; None where they are too few, or the interval was not searched."""
    intervals = {row.video: row.settings[INTERVAL] for row in rows if INTERVAL in row.settings and row.point == choice[row.video].recommended}
    if len(intervals) < MIN_VIDEOS:
        return None
    found = {}
    for video in config.planned_videos():
        if layout.video_name(video) in intervals:
            clip = read_clip(layout.shard(video.performer, "main"))
            found[layout.video_name(video)] = Complexity.of(clip.pose.at(slice(clip.num_train, None)), clip.fps)
    write_rule(layout.search / "rule.json", found, intervals)
    return layout.search / "rule.json"
