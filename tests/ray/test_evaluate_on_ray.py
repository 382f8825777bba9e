"""One task per video on a real Ray: outcomes in order, failures alone, the second run skips."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dpscale.config.schema import Config, RunConfig, TrackingConfig
from dpscale.config.sources import Pose2simPerformer, VideoConfig
from dpscale.data.checkpoint import commit_folder
from dpscale.data.layout import RunLayout
from dpscale.data.shards import write_clip
from dpscale.evaluate.on_ray import evaluate
from dpscale.tracking.tracker import make_tracker
from tests.unit.evaluate.clips import SIZE, main_clip

pytestmark = pytest.mark.usefixtures("ray_session")


def test_videos_are_scored_and_tracked_and_a_failure_stays_alone(tmp_path):
    config = Config(
        run=RunConfig(root=tmp_path, name="two"),
        performers=(Pose2simPerformer(name="ann"), Pose2simPerformer(name="bob")),
        tracking=TrackingConfig(kind="file"),
    )
    layout, (ann, bob) = RunLayout.of(config), config.planned_videos()
    assert bob == VideoConfig(performer="bob")
    write_clip(layout.shard("ann", "main"), main_clip(15, 12))
    frames = dict.fromkeys(("wo_opt", "ivr_opt", "field"), np.zeros((3, SIZE, SIZE, 3), np.uint8))
    commit_folder(layout.joint(ann) / "result", lambda into: np.savez(into / "frames.npz", **frames), {})

    seen = []
    failed, done = evaluate(config, layout, [bob, ann], make_tracker(config, layout), on_outcome=seen.append)
    assert (failed.name, done.name) == ("bob--self", "ann--self")
    assert "run optimize first" in failed.error
    assert done.ok
    assert not done.skipped
    assert sorted(outcome.name for outcome in seen) == ["ann--self", "bob--self"]
    assert layout.metrics(ann).exists()

    events = [json.loads(line) for line in (layout.root / "tracking.jsonl").read_text().splitlines()]
    finished = {event["key"]: event["status"] for event in events if event["event"] == "finish"}
    assert finished == {"evaluate/ann--self": "FINISHED", "evaluate/bob--self": "FAILED"}
    (metrics,) = [event["values"] for event in events if event["event"] == "metrics"]
    assert metrics["ivr_opt/warp_error"] == 0

    (again,) = evaluate(config, layout, [ann], make_tracker(config, layout))
    assert again.skipped
