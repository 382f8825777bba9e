"""Videos with predicted intervals in one batch, against each alone with that number in its settings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dpscale.config.load import check, resolved
from dpscale.config.schema import Config
from dpscale.data.checkpoint import write_json
from dpscale.data.layout import RunLayout
from dpscale.search.prediction import with_interval
from dpscale.tracking.tracker import FileTracker
from jobs.batch import Batch
from jobs.stages import ON_RAY
from tests.ray.test_optimize_on_ray import VIDEOS, frames_of, made_alone, make_config, write_inputs
from tests.small_performer import small_model
from tests.unit.jobs.test_intervals import write_small_rule


@pytest.fixture
def config(tmp_path: Path) -> Config:
    small_model().save(tmp_path / "base")
    plain = resolved(make_config(tmp_path, tmp_path / "base", "run"))
    plain["videos"] = [{"performer": video.performer} for video in VIDEOS]
    plain["joint"] |= {"refresh_interval": "auto", "refresh_interval_rule": str(write_small_rule(tmp_path / "rule.json"))}
    return check(plain)


def test_each_video_is_made_with_its_own_interval(ray_session: None, config: Config, tmp_path: Path) -> None:
    layout = RunLayout.of(config)
    write_inputs(layout)
    fixed = with_interval(config, layout, VIDEOS[0])
    told = json.loads(layout.interval(VIDEOS[0]).read_text())
    write_json(layout.interval(VIDEOS[0]), told | {"refresh_interval": 2})  # the clips are alike, and so would be the predictions
    assert fixed.refresh_interval in (3, 4, 5)
    outcomes = ON_RAY["optimize"](Batch(config, layout, FileTracker(tmp_path / "tracking.jsonl", {})))
    assert [(outcome.name, outcome.error) for outcome in outcomes] == [("ann--self", None), ("ben--self", None)]
    made = frames_of(layout)
    starts = [event for event in map(json.loads, (tmp_path / "tracking.jsonl").read_text().splitlines()) if event["event"] == "start"]
    intervals = {event["name"]: event["params"]["refresh_interval"] for event in starts if event["key"].startswith("optimize/")}
    assert intervals["ann--self"] == 2 != intervals["ben--self"]
    for number, video in enumerate(VIDEOS):
        alone = make_config(tmp_path, tmp_path / "base", f"alone-{number}", {"refresh_interval": intervals[layout.video_name(video)]})
        for name, frames in made_alone(alone)[video.performer].items():
            np.testing.assert_array_equal(made[video.performer][name], frames, err_msg=f"{video.performer} {name}")
