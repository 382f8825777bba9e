"""From the videos of a search to the refresh interval of a new one: ridge regression on length and pose complexity (S, C)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Float
from pydantic import Field, TypeAdapter, ValidationError

from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.checkpoint import write_json
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError
from dpscale.joint.video import Driving
from dpscale.search.record import Chosen, Row
from dpscale.search.space import INTERVAL

MIN_VIDEOS = 3
"""With fewer, leaving one out leaves nothing to fit."""
SCHEMA_VERSION = 1
"""Of rule.json."""
RIDGE = 1.0
"""Penalty on squared weights of standardised features: with few videos a rule should stay near their mean."""
_CONFIDENT = 0.5
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Complexity:
    """What the supplement says the interval depends on."""

    num_frames: int
    keypoint_speed: float
    """Mean over frames and confident keypoints, in picture heights a second."""
    rotation_range: float
    """Degrees that the body turns about the vertical between its two extremes."""

    @classmethod
    def of(cls, keypoints: Float[np.ndarray, "N 18 3"], rotations: Float[np.ndarray, "N B 3 3"], height_px: int, fps: float) -> Complexity:
        """Arrays as in data.types, of one frame or more: keypoints in px with their confidence, rotations to camera axes."""
        seen = (keypoints[1:, :, 2] >= _CONFIDENT) & (keypoints[:-1, :, 2] >= _CONFIDENT)
        moved = np.linalg.norm(np.diff(keypoints[..., :2], axis=0), axis=-1) / height_px
        speed = float(moved[seen].mean() * fps) if seen.any() else 0.0
        # Bone 0 is the root; its third axis points out of the body. Camera axes: x right, z forward.
        facing = rotations[:, 0, :, 2]
        heading = np.unwrap(np.arctan2(facing[:, 0], facing[:, 2]))
        return cls(len(keypoints), speed, float(np.degrees(np.ptp(heading))))

    @classmethod
    def of_video(cls, config: Config, layout: RunLayout, video: VideoConfig) -> Complexity:
        """Of the driving pose; pictures stay on the disk. Raises ShardError where it is missing, InputError where it has no frames."""
        driving = Driving.of(config, layout, video)
        shard, frames = driving.shard, driving.frames
        if len(frames) == 0:
            raise InputError(f"{layout.video_name(video)} has no frames to make: all frames of the performer's clip train")
        height_px = shard.column("iuv", frames[:1]).shape[1]
        return cls.of(shard.column("keypoints", frames), shard.column("rotations", frames), height_px, shard.fps)

    @property
    def features(self) -> Float[np.ndarray, " 3"]:
        return np.array([np.log2(self.num_frames), self.keypoint_speed, self.rotation_range])


@dataclass(frozen=True)
class Rule:
    """log2(interval) as a linear function of standardised features."""

    mean: tuple[_Finite, _Finite, _Finite]
    scale: tuple[_Positive, _Positive, _Positive]
    weights: tuple[_Finite, _Finite, _Finite]
    bias: _Finite
    smallest: _Count
    largest: _Count
    """Intervals between which it was fitted; it predicts none outside."""
    steps: _Count
    """joint.steps of the runs that it was fitted to."""

    def interval(self, complexity: Complexity) -> int:
        standard = (complexity.features - np.array(self.mean)) / np.array(self.scale)
        doublings = self.bias + float(standard @ np.array(self.weights))
        return round(2 ** float(np.clip(doublings, np.log2(self.smallest), np.log2(self.largest))))


def fit(complexities: Sequence[Complexity], intervals: Sequence[int], steps: int) -> Rule:
    x, y = np.stack([one.features for one in complexities]), np.log2(np.array(intervals, float))
    mean, spread = x.mean(axis=0), x.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    standard = (x - mean) / scale
    weights = np.linalg.solve(standard.T @ standard + RIDGE * np.eye(x.shape[1]), standard.T @ (y - y.mean()))
    found = {"mean": mean, "scale": scale, "weights": weights}
    vectors = {name: tuple(values.tolist()) for name, values in found.items()}
    return Rule(**vectors, bias=float(y.mean()), smallest=min(intervals), largest=max(intervals), steps=steps)


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
        rule = fit([complexities[m] for m in others], [intervals[m] for m in others], steps=1)
        by_rule.append(abs(np.log2(rule.interval(complexities[n])) - truth[n]))
        by_mean.append(abs(truth[others].mean() - truth[n]))
    return LeftOut(float(np.mean(by_rule)), float(np.mean(by_mean)))


def write_rule(path: Path, complexities: Mapping[str, Complexity], intervals: Mapping[str, int], steps: int) -> Rule:
    """Fits, measures and writes the rule, with the videos that it comes from. Raises InputError as leave_one_out does."""
    videos = sorted(intervals)
    x, y = [complexities[video] for video in videos], [intervals[video] for video in videos]
    error, rule = leave_one_out(x, y), fit(x, y, steps)
    told = [{"video": video, **asdict(one), "interval": interval} for video, one, interval in zip(videos, x, y, strict=True)]
    write_json(path, {"schema": SCHEMA_VERSION, "rule": asdict(rule), "leave_one_out_doublings": asdict(error), "videos": told})
    return rule


def read_rule(path: Path) -> Rule:
    """Raises InputError that names the file."""
    try:
        told = json.loads(path.read_text())
        if told["schema"] != SCHEMA_VERSION:
            raise InputError(f"{path}: has schema {told['schema']}, this version reads {SCHEMA_VERSION}: run the search again")
        return TypeAdapter(Rule).validate_python(told["rule"])
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
        if isinstance(error, ValidationError):
            what = f"{len(error.errors())} of its values are wrong"
        elif isinstance(error, OSError):
            what = error.strerror or what
        raise InputError(f"{path}: holds no rule ({what}); `dpscale search` of {MIN_VIDEOS} videos or more writes one") from error


def rule_of(config: Config, layout: RunLayout, rows: Sequence[Row], choice: Mapping[str, Chosen]) -> Path | None:
    """Writes search/rule.json from the recommended intervals; None where they are too few, or the interval was not searched."""
    intervals = {row.video: row.settings[INTERVAL] for row in rows if INTERVAL in row.settings and row.point == choice[row.video].recommended}
    if len(intervals) < MIN_VIDEOS:
        return None
    videos = [video for video in config.planned_videos() if layout.video_name(video) in intervals]
    found = {layout.video_name(video): Complexity.of_video(config, layout, video) for video in videos}
    write_rule(layout.rule, found, intervals, config.joint.steps)
    return layout.rule
