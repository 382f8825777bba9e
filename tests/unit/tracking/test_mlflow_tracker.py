"""A real MLflow store (SQLite) in a temporary folder; read back with a client of its own."""

from __future__ import annotations

import json

import pytest
from mlflow import MlflowClient

from dpscale.config.schema import Config, RunConfig, TrackingConfig
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError
from dpscale.tracking.mlflow_tracker import MlflowTracker
from dpscale.tracking.tracker import BATCH, Guarded, make_tracker


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One database for the module: creating it takes seconds."""
    return tmp_path_factory.mktemp("mlflow root with a space")


def config_of(root, name, **sections):
    return Config(run=RunConfig(root=root, name=name), **sections)


def client_of(root):
    return MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")


def ids_of(config):
    return json.loads((RunLayout.of(config).root / "tracking.json").read_text())["runs"]


def test_params_metrics_and_artifacts_arrive_in_children_of_one_parent(root, tmp_path):
    config = config_of(root, "arrive")
    tracker = make_tracker(config, RunLayout.of(config))
    assert isinstance(tracker, Guarded)
    key = tracker.start("joint", "ann--self", {"steps": 10})
    for step in range(3):
        tracker.metrics(key, {"loss": 1.0 / (step + 1)}, step)
    picture = tmp_path / "contact_sheet.png"
    picture.write_bytes(b"png")
    tracker.artifact(key, picture, "sheets")
    tracker.finish(key, "FINISHED")
    tracker.finish(BATCH, "FINISHED")

    client, ids = client_of(root), ids_of(config)
    parent, child = client.get_run(ids[BATCH]), client.get_run(ids[key])
    assert parent.info.run_name == "arrive"
    assert parent.data.params["finetune.lr"] == "5e-06"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.params == {"steps": "10"}
    assert [(m.step, m.value) for m in client.get_metric_history(ids[key], "loss")] == [(0, 1.0), (1, 0.5), (2, 1.0 / 3)]
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert [f.path for f in client.list_artifacts(ids[key], "sheets")] == ["sheets/contact_sheet.png"]
    assert (root / "mlartifacts").is_dir()


def test_a_resumed_command_continues_the_same_runs_and_tags_changed_settings(root):
    config = config_of(root, "resume")
    layout = RunLayout.of(config)
    key = MlflowTracker(config, layout).start("joint", "ann--self", {"lr": 1})
    first = ids_of(config)

    again = MlflowTracker(config, layout)
    assert again.start("joint", "ann--self", {"lr": 2}) == key
    assert ids_of(config) == first
    child = client_of(root).get_run(first[key])
    assert child.data.params["lr"] == "1"
    assert child.data.tags["changed.lr"] == "2"
    assert child.info.status == "RUNNING"


def test_a_child_that_had_finished_runs_again_when_it_is_continued(root):
    config = config_of(root, "reopened")
    tracker = MlflowTracker(config, RunLayout.of(config))
    key = tracker.start("joint", "ann", {})
    tracker.finish(key, "FAILED")
    tracker.start("joint", "ann", {})
    assert client_of(root).get_run(ids_of(config)[key]).info.status == "RUNNING"


def test_ending_the_batch_ends_the_children_that_are_still_open(root):
    config = config_of(root, "killed")
    tracker = MlflowTracker(config, RunLayout.of(config))
    done, left = tracker.start("finetune", "ann", {}), tracker.start("joint", "ann--self", {})
    tracker.finish(done, "FINISHED")
    tracker.finish(BATCH, "KILLED")
    client, ids = client_of(root), ids_of(config)
    assert {key: client.get_run(ids[key]).info.status for key in (done, left, BATCH)} == {done: "FINISHED", left: "KILLED", BATCH: "KILLED"}


def test_runs_deleted_in_the_store_are_made_anew(root):
    config = config_of(root, "deleted")
    layout = RunLayout.of(config)
    MlflowTracker(config, layout)
    first = ids_of(config)[BATCH]
    client_of(root).delete_run(first)
    MlflowTracker(config, layout)
    assert ids_of(config)[BATCH] != first


def test_more_params_than_one_call_takes_and_longer_than_one_may_be(root):
    config = config_of(root, "many")
    tracker = MlflowTracker(config, RunLayout.of(config))
    key = tracker.start("joint", "ann", {**{f"p{i}": i for i in range(250)}, "long": "x" * 7000})
    params = client_of(root).get_run(ids_of(config)[key]).data.params
    assert len(params) == 251
    assert len(params["long"]) == 6000


@pytest.mark.parametrize("uri", ["sqlite:///relative.db", "sqlite:////proc/no/such/folder/mlflow.db", "nonsense://server"])
def test_a_store_that_cannot_be_opened_stops_the_start_with_the_remedy(tmp_path, uri):
    config = config_of(tmp_path, "bad", tracking=TrackingConfig(uri=uri))
    with pytest.raises(InputError, match=r"tracking\.uri"):
        MlflowTracker(config, RunLayout.of(config))
