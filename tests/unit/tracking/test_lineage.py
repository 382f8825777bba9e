from __future__ import annotations

import json

import pytest

from dpscale.config.schema import Config, RunConfig, TrackingConfig
from dpscale.config.sources import RenderedPerformer, SelfDrive, VideoConfig
from dpscale.data.checkpoint import MARKER, write_json
from dpscale.data.layout import RunLayout
from dpscale.tracking.lineage import FILES, lineage, record_lineage
from dpscale.tracking.tracker import FileTracker


@pytest.fixture
def run(tmp_path):
    """A run folder with the markers that the stages leave."""
    performer = RenderedPerformer(name="ann", performer_seed=1, motion="walk")
    config = Config(run=RunConfig(root=tmp_path, name="one"), performers=(performer,), drives=(SelfDrive(),))
    layout, video = RunLayout.of(config), VideoConfig(performer="ann", drive="self")
    write_json(layout.shard("ann", "main") / MARKER, {"sha256": "5a", "key": "k"})
    write_json(layout.finetune("ann") / MARKER, {"settings": "f1"})
    write_json(layout.joint(video) / "result" / MARKER, {"fingerprint": "j1"})
    write_json(layout.metrics(video), {"fingerprint": "e1"})
    return config, layout


def events(layout):
    return [json.loads(line) for line in (layout.root / "told.jsonl").read_text().splitlines()][1:]


def test_each_result_names_what_it_was_made_from(run):
    assert lineage(*run) == {
        "finetune/ann": {"lineage.shards": "5a", "lineage.result": "f1"},
        "optimize/ann--self": {"lineage.finetune": "f1", "lineage.shards": "5a", "lineage.result": "j1"},
        "evaluate/ann--self": {"lineage.joint": "j1", "lineage.result": "e1"},
    }


def test_only_what_changed_is_told_again(run):
    config, layout = run
    tracker = FileTracker(layout.root / "told.jsonl", {})
    record_lineage(config, layout, tracker)
    told = events(layout)
    assert [event["event"] for event in told] == ["tags", "register", "tags", "tags"]
    assert told[1]["files"] == [*(str(layout.finetune("ann") / name) for name in FILES), str(layout.resolved_config)]
    assert told[1]["about"]["settings"] == "f1"
    record_lineage(config, layout, tracker)
    assert len(events(layout)) == 4

    write_json(layout.finetune("ann") / MARKER, {"settings": "f2"})
    record_lineage(config, layout, tracker)
    assert [(event["event"], event["key"]) for event in events(layout)[4:]] == [
        ("tags", "finetune/ann"),
        ("register", "finetune/ann"),
        ("tags", "optimize/ann--self"),
    ]
    elsewhere = config.model_copy(update={"tracking": TrackingConfig(experiment="other", models=False)})
    record_lineage(elsewhere, layout, tracker)  # another place has been told nothing
    assert [event["event"] for event in events(layout)[7:]] == ["tags", "tags", "tags"]


def test_unfinished_results_have_none_and_a_strange_marker_stops_nobody(run, caplog):
    config, layout = run
    (layout.finetune("ann") / MARKER).unlink()
    assert "finetune/ann" not in lineage(config, layout)
    write_json(layout.finetune("ann") / MARKER, {"of": "another version"})
    record_lineage(config, layout, FileTracker(layout.root / "told.jsonl", {}))
    assert "the run goes on" in caplog.text
