"""`joint.refresh_interval = "auto"`: each video's interval from the rule of a search, fixed in the video's folder before its first step.

What is fixed stays, whatever becomes of the rule's file: a resumed run makes the same frames.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from dataclasses import asdict
from typing import Any

from dpscale.config.schema import Config, JointConfig
from dpscale.config.sources import VideoConfig
from dpscale.data.checkpoint import write_json
from dpscale.data.layout import RunLayout
from dpscale.data.shards import is_complete
from dpscale.data.types import InputError
from dpscale.joint.video import driving_shard, inputs_key
from dpscale.search.rule import Complexity, Rule, read_rule

log = logging.getLogger(__name__)


def check_rule(config: Config, layout: RunLayout) -> None:
    """Raises InputError where the interval of a planned video is still to be predicted and the rule cannot be read."""
    if all(_fixed(config, layout, video) for video in config.planned_videos() if _is_predicted(config, video)):
        return
    rule = _rule(config)
    if rule.steps != config.joint.steps:
        log.warning(
            "joint.refresh_interval_rule comes from runs of %d field steps, and joint.steps = %d: whether its intervals suit those was not tried",
            rule.steps, config.joint.steps,
        )  # fmt: skip


def with_interval(config: Config, layout: RunLayout, video: VideoConfig) -> VideoConfig:
    """The video with its interval: its own, the one that was fixed for it earlier, or one that is predicted and fixed now.

    As it is where the settings give all videos one interval. Raises InputError and ShardError where nothing can be predicted."""
    if not _is_predicted(config, video):
        return video
    found = _fixed(config, layout, video)
    if found is None:
        found = _predicted(config, layout, video)
        write_json(layout.interval(video), found)
    return video.model_copy(update={"refresh_interval": found["refresh_interval"]})


def foreseen(config: Config, layout: RunLayout, video: VideoConfig) -> int | None:
    """The interval that `with_interval` would give a video, nothing written; None where its driving pose is not there yet."""
    own = config.of_video(video).joint.refresh_interval
    if own != "auto":
        return own
    found = _fixed(config, layout, video)
    if found is None and is_complete(driving_shard(config, layout, video)):
        found = _predicted(config, layout, video)
    return None if found is None else found["refresh_interval"]


def even(interval: int, joint: JointConfig) -> int:
    """An interval that makes as many refreshes, about equally far apart: the last one is at the end of the run in any case."""
    num_refreshes = math.ceil(joint.steps / min(interval, joint.steps))
    return max(math.ceil(joint.steps / num_refreshes), joint.refresh_overlap + 1)


def _is_predicted(config: Config, video: VideoConfig) -> bool:
    return config.of_video(video).joint.refresh_interval == "auto"


def _fixed(config: Config, layout: RunLayout, video: VideoConfig) -> dict[str, Any] | None:
    """What was written down for a video, unless it is of other inputs."""
    path = layout.interval(video)
    found = json.loads(path.read_text()) if path.exists() else None
    return found if found is not None and found["follows_from"] == _follows_from(config, layout, video) else None


def _predicted(config: Config, layout: RunLayout, video: VideoConfig) -> dict[str, Any]:
    rule, complexity = _rule(config), Complexity.of_video(config, layout, video)
    return {
        "refresh_interval": even(rule.interval(complexity), config.joint),
        "predicted": rule.interval(complexity),
        "complexity": asdict(complexity),
        "rule": asdict(rule),
        "follows_from": _follows_from(config, layout, video),
    }


def _follows_from(config: Config, layout: RunLayout, video: VideoConfig) -> str:
    """Hash of what a prediction is for: the rule is not in it."""
    told = [inputs_key(config, layout, video), config.joint.steps, config.joint.refresh_overlap]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _rule(config: Config) -> Rule:
    named = config.joint.refresh_interval_rule
    assert named is not None, "the settings ask for a rule"
    try:
        return read_rule(RunLayout(named).rule if named.is_dir() else named)
    except InputError as error:
        raise InputError(f"joint.refresh_interval_rule = {str(named)!r}: {error}") from error
