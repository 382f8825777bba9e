"""A real MLflow store (SQLite) in a temporary folder; read back with a client of its own."""

from __future__ import annotations

import json
import math
import threading

import mlflow
import pytest
from mlflow import MlflowClient

from dpscale.config.schema import Config, RunConfig, TrackingConfig
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError
from dpscale.tracking.lane import Refused
from dpscale.tracking.mlflow_tracker import MlflowStore
from dpscale.tracking.tracker import BATCH, Guarded, Recorder, event, make_tracker


class Direct(Recorder):
    """Every event at once, without a spool."""

    def __init__(self, config):
        self.store = MlflowStore(config, RunLayout.of(config))
        self.record([event("start", BATCH, params={})])

    def record(self, events):
        self.store.deliver(events)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One database for the module: creating it takes seconds."""
    return tmp_path_factory.mktemp("mlflow root with a space")


def config_of(root, name, **sections):
    return Config(run=RunConfig(root=root, name=name), **sections)


def client_of(root):
    uri = f"sqlite:///{root}/mlflow.db"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


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
    tracker.flush()

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
    key = Direct(config).start("joint", "ann--self", {"lr": 1})
    first = ids_of(config)

    assert Direct(config).start("joint", "ann--self", {"lr": 2}) == key
    assert ids_of(config) == first
    child = client_of(root).get_run(first[key])
    assert child.data.params["lr"] == "1"
    assert child.data.tags["changed.lr"] == "2"
    assert child.info.status == "RUNNING"


def test_a_child_that_had_finished_runs_again_when_it_is_continued(root):
    config = config_of(root, "reopened")
    tracker = Direct(config)
    key = tracker.start("joint", "ann", {})
    failed = event("finish", key, status="FAILED")
    tracker.record([failed])
    tracker.record([event("start", key, params={}) | {"time_ms": failed["time_ms"] + 1}])
    assert client_of(root).get_run(ids_of(config)[key]).info.status == "RUNNING"


def test_what_is_told_twice_is_there_once(root, tmp_path):
    config, about = config_of(root, "twice"), {"settings": "abc"}
    tracker = Direct(config)
    delta = tmp_path / "denoiser.safetensors"
    delta.write_bytes(b"delta")
    values = {"loss": 0.1, "nothing": math.nan, "much": math.inf, "zero": -0.0}
    events = [
        event("start", "joint/ann", stage="joint", name="ann", params={"lr": 1e-4}),
        *[event("metrics", "joint/ann", values=values, step=step) for step in range(40)],
        event("tags", "joint/ann", tags={"lineage.result": "abc"}),
        event("artifact", "joint/ann", path=str(delta), folder="files"),
        event("register", "joint/ann", performer="twice", files=[str(delta)], about=about),
        event("finish", "joint/ann", status="FINISHED"),
    ]
    for chunk in (events, events, events[:20], events[10:]):
        tracker.record(chunk)
    client, run_id = client_of(root), ids_of(config)["joint/ann"]
    for name in values:
        history = client.get_metric_history(run_id, name)
        assert sorted(point.step for point in history) == list(range(40)), name
    assert client.get_run(run_id).info.status == "FINISHED"
    assert client.get_run(run_id).info.end_time == events[-1]["time_ms"]
    assert [int(version.version) for version in client.search_model_versions("name = 'dpscale-twice'")] == [1]


def test_a_run_whose_number_was_lost_is_found_again(root):
    config = config_of(root, "lost")
    first = Direct(config)
    key = first.start("joint", "ann", {})
    path = RunLayout.of(config).root / "tracking.json"
    made = ids_of(config)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"runs": {}}))  # killed between MLflow's answer and its note
    again = Direct(config)
    again.metrics(key, {"loss": 1.0}, 0)
    assert ids_of(config) == made


def test_points_without_a_start_make_their_run(root):
    config = config_of(root, "no-start")
    tracker = Direct(config)
    tracker.metrics("joint/ann", {"loss": 1.0}, 3)
    run = client_of(root).get_run(ids_of(config)["joint/ann"])
    assert run.data.tags["mlflow.parentRunId"] == ids_of(config)[BATCH]
    assert run.data.metrics == {"loss": 1.0}


def test_two_threads_make_one_run(root):
    config = config_of(root, "threads")
    tracker = Direct(config)
    threads = [threading.Thread(target=tracker.metrics, args=("joint/ann", {"loss": float(i)}, i)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(client_of(root).get_metric_history(ids_of(config)["joint/ann"], "loss")) == 4


def test_ending_the_batch_ends_the_children_that_are_still_open(root):
    config = config_of(root, "killed")
    tracker = Direct(config)
    done, left = tracker.start("finetune", "ann", {}), tracker.start("joint", "ann--self", {})
    tracker.finish(done, "FINISHED")
    tracker.finish(BATCH, "KILLED")
    client, ids = client_of(root), ids_of(config)
    assert {key: client.get_run(ids[key]).info.status for key in (done, left, BATCH)} == {done: "FINISHED", left: "KILLED", BATCH: "KILLED"}


def test_runs_deleted_in_the_store_are_made_anew(root):
    config = config_of(root, "deleted")
    Direct(config)
    first = ids_of(config)[BATCH]
    client_of(root).delete_run(first)
    Direct(config)
    assert ids_of(config)[BATCH] != first


def test_more_params_than_one_call_takes_and_longer_than_one_may_be(root):
    config = config_of(root, "many")
    tracker = Direct(config)
    key = tracker.start("joint", "ann", {**{f"p{i}": i for i in range(250)}, "long": "x" * 7000})
    params = client_of(root).get_run(ids_of(config)[key]).data.params
    assert len(params) == 251
    assert len(params["long"]) == 6000


def test_hostile_names_arrive(root):
    config = config_of(root, "hostile")
    tracker = Direct(config)
    key = tracker.start("joint", "ann'; DROP TABLE runs; --", {"../x": "a\0b"})
    tracker.metrics(key, {"../../etc/passwd": 1.0, "loss (%)": 2.0}, 0)
    tracker.tags(key, {"a" * 400: "b" * 9000})
    run = client_of(root).get_run(ids_of(config)[key])
    assert sorted(run.data.metrics.values()) == [1.0, 2.0]
    assert "a\ufffdb" in run.data.params.values()


def test_a_file_that_went_away_is_refused(root, tmp_path):
    tracker = Direct(config_of(root, "gone"))
    with pytest.raises(Refused, match=r"gone\.mp4"):
        tracker.artifact("joint/ann", tmp_path / "gone.mp4")


def test_a_performer_is_a_registered_model_that_says_how_to_load_it(root, tmp_path):
    config = config_of(root, "models")
    tracker, client = Direct(config), client_of(root)
    for content in (b"one", b"two"):
        (tmp_path / "denoiser.safetensors").write_bytes(content)
        tracker.register("finetune/ann", "ann", [tmp_path / "denoiser.safetensors"], {"settings": content.decode(), "preset": "tiny"})
    version = client.get_model_version_by_alias("dpscale-ann", "champion")
    assert (int(version.version), version.run_id) == (2, ids_of(config)["finetune/ann"])
    assert "load_delta" in version.description
    assert "models:/dpscale-ann@champion" in version.description
    mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.db")
    signature = mlflow.models.get_model_info("models:/dpscale-ann@champion").signature
    assert next((tensor.name, tensor.shape) for tensor in signature.inputs) == ("keypoints", (-1, 18, 3))
    folder = mlflow.artifacts.download_artifacts("models:/dpscale-ann@champion", dst_path=str(tmp_path / "got"))
    assert (tmp_path / "got" / "denoiser.safetensors").read_bytes() == b"two", folder

    client.set_registered_model_alias("dpscale-ann", "champion", "1")  # somebody prefers the first
    tracker.register("finetune/ann", "ann", [tmp_path / "denoiser.safetensors"], {"settings": "two", "preset": "tiny"})
    assert int(client.get_model_version_by_alias("dpscale-ann", "champion").version) == 1
    mlflow.artifacts.download_artifacts("models:/dpscale-ann@champion", dst_path=str(tmp_path / "first"))
    assert (tmp_path / "first" / "denoiser.safetensors").read_bytes() == b"one"


def test_an_older_version_that_comes_late_does_not_become_the_champion(root, tmp_path):
    tracker = Direct(config_of(root, "late"))
    delta = tmp_path / "denoiser.safetensors"
    delta.write_bytes(b"delta")
    old, new = (event("register", "finetune/bob", performer="bob", files=[str(delta)], about={"settings": s}) for s in ("old", "new"))
    tracker.record([new | {"time_ms": old["time_ms"] + 5}])
    tracker.record([old])
    champion = client_of(root).get_model_version_by_alias("dpscale-bob", "champion")
    assert champion.tags["settings"] == "new"


@pytest.mark.parametrize("uri", ["sqlite:///relative.db", "sqlite:////proc/no/such/folder/mlflow.db", "nonsense://server"])
def test_a_store_that_cannot_be_opened_stops_the_start_with_the_remedy(tmp_path, uri):
    config = config_of(tmp_path, "bad", tracking=TrackingConfig(uri=uri))
    with pytest.raises(InputError, match=r"tracking\.uri"):
        make_tracker(config, RunLayout.of(config))
