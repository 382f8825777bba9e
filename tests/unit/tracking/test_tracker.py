from __future__ import annotations

import json
import logging

import pytest

from dpscale.config.schema import Config, RunConfig, TrackingConfig
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError
from dpscale.tracking.tracker import BATCH, FileTracker, Guarded, NullTracker, flat_params, make_tracker


def config_of(tmp_path, kind):
    return Config(run=RunConfig(root=tmp_path, name="one"), tracking=TrackingConfig(kind=kind))


def events(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_none_forgets_everything(tmp_path):
    config = config_of(tmp_path, "none")
    tracker = make_tracker(config, RunLayout.of(config))
    assert isinstance(tracker, NullTracker)
    assert tracker.start("joint", "ann--self", {}) == "joint/ann--self"
    assert list(tmp_path.iterdir()) == []


def test_file_keeps_one_line_an_event_and_appends_on_resume(tmp_path):
    config = config_of(tmp_path, "file")
    layout = RunLayout.of(config)
    for _ in range(2):
        tracker = make_tracker(config, layout)
        key = tracker.start("finetune", "ann", {"lr": 1e-5})
        tracker.metrics(key, {"loss": 0.5, "bad": float("nan")}, step=3)
        tracker.artifact(key, tmp_path / "a.png", "sheets")
        tracker.finish(key, "FINISHED")
    lines = events(layout.root / "tracking.jsonl")
    assert [line["event"] for line in lines] == ["start", "start", "metrics", "artifact", "finish"] * 2
    assert lines[0]["key"] == BATCH
    assert lines[0]["params"]["run.name"] == "one"
    assert lines[2]["values"] == {"loss": 0.5, "bad": None}
    assert lines[2]["step"] == 3
    assert lines[4]["status"] == "FINISHED"


def test_a_file_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"tracking\.kind"):
        FileTracker(tmp_path / "folder", {})


def test_tags_and_models_are_named(tmp_path):
    tracker = FileTracker(tmp_path / "tracking.jsonl", {})
    tracker.tags("finetune/ann", {"lineage.shards": "abc"})
    tracker.register("finetune/ann", "ann", [tmp_path / "denoiser.safetensors"], {"settings": "def"})
    lines = events(tmp_path / "tracking.jsonl")[1:]
    assert [line["event"] for line in lines] == ["tags", "register"]
    assert lines[0]["tags"] == {"lineage.shards": "abc"}
    assert lines[1]["files"] == [str(tmp_path / "denoiser.safetensors")]


def test_the_password_of_a_database_is_not_a_param():
    flat = flat_params(Config(tracking=TrackingConfig(uri="postgresql://mlflow:s3cret@db/mlflow")))
    assert flat["tracking.uri"] == "postgresql://db/mlflow"
    assert "s3cret" not in str(flat)


def test_flat_params_name_every_setting_once():
    flat = flat_params(Config())
    assert flat["finetune.decoder.lr"] == 5e-5
    assert flat["diffusion.pose_kinds"] == '["keypoints", "iuv"]'
    assert flat["finetune.nvme_path"] is None
    assert not any(isinstance(value, dict | list) for value in flat.values())


class Broken(NullTracker):
    """A disk that is full."""

    def __init__(self):
        self.calls = 0

    def record(self, events):
        self.calls += 1
        raise OSError("no space left on device")


def test_failures_after_the_start_are_one_warning_and_three_are_enough(caplog):
    broken = Broken()
    tracker = Guarded(broken)
    with caplog.at_level(logging.WARNING):
        for step in range(10):
            tracker.metrics("joint/ann", {"loss": 1.0}, step)
    assert len(caplog.records) == 1
    assert "no space left on device" in caplog.text
    assert broken.calls == 3


def test_a_success_resets_the_count_of_failures():
    broken = Broken()
    tracker = Guarded(broken)
    for step in range(6):
        tracker.metrics("joint/ann", {"loss": 1.0}, step)
        tracker.flush()
    assert broken.calls == 6
