"""The one writer on a real Ray with a real MLflow store."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys

import pytest
import ray
from mlflow import MlflowClient

from dpscale.config.schema import Config, RunConfig, TrackingConfig
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError
from dpscale.tracking.on_ray import start_tracker
from dpscale.tracking.tracker import BATCH, NullTracker

pytestmark = pytest.mark.usefixtures("ray_session")


@ray.remote(num_cpus=0.5)
def work(tracker, name):
    key = tracker.start("joint", name, {"steps": 3})
    for step in range(3):
        tracker.metrics(key, {"loss": 1.0 / (step + 1)}, step)
    tracker.finish(key, "FINISHED")
    tracker.flush()
    return key


def test_workers_log_through_one_writer_into_mlflow(tmp_path):
    config = Config(run=RunConfig(root=tmp_path, name="two"))
    layout = RunLayout.of(config)
    tracker = start_tracker(config, layout)
    keys = ray.get([work.remote(tracker, name) for name in ("ann--self", "bob--self")])
    tracker.finish(BATCH, "FINISHED")
    tracker.flush()
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    ids = json.loads((layout.root / "tracking.json").read_text())["runs"]
    assert set(ids) == {BATCH, *keys}
    for key in keys:
        assert [m.value for m in client.get_metric_history(ids[key], "loss")] == [1.0, 0.5, 1.0 / 3]
        assert client.get_run(ids[key]).info.status == "FINISHED"
        assert client.get_run(ids[key]).data.tags["mlflow.parentRunId"] == ids[BATCH]


def test_a_store_that_cannot_be_opened_stops_the_start(tmp_path):
    config = Config(run=RunConfig(root=tmp_path, name="bad"), tracking=TrackingConfig(uri="nonsense://server"))
    with pytest.raises(InputError, match=r"tracking\.uri"):
        start_tracker(config, RunLayout.of(config))


def test_none_needs_no_actor(tmp_path):
    config = Config(run=RunConfig(root=tmp_path, name="none"), tracking=TrackingConfig(kind="none"))
    assert isinstance(start_tracker(config, RunLayout.of(config)), NullTracker)


def test_a_killed_writer_continues_the_same_record_and_a_dead_one_stops_nobody(tmp_path, caplog):
    config = Config(run=RunConfig(root=tmp_path, name="killed"), tracking=TrackingConfig(kind="file"))
    layout = RunLayout.of(config)
    tracker = start_tracker(config, layout)
    key = tracker.start("joint", "ann--self", {})
    tracker.flush()
    os.kill(ray.get(tracker._actor.__ray_call__.remote(lambda writer: os.getpid())), signal.SIGKILL)
    tracker.metrics(key, {"loss": 1.0}, 0)
    tracker.flush()
    lines = [json.loads(line) for line in (layout.root / "tracking.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "start", "start", "metrics"]  # the batch was opened twice

    ray.kill(tracker._actor)
    with caplog.at_level(logging.WARNING):
        tracker.metrics(key, {"loss": 1.0}, 1)
        tracker.flush()
    assert "the run goes on" in caplog.text


MEASURED = """
import json, sys, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from dpscale.config.schema import TrackingConfig
from dpscale.tracking.on_ray import measured_nodes
from dpscale.tracking.tracker import FileTracker

path = Path(sys.argv[1])

def labels():
    events = [json.loads(line) for line in path.read_text().splitlines()]
    return {name.split("/")[1] for event in events if event["event"] == "metrics" for name in event["values"]}

def until(count):
    end = time.time() + 60
    while len(labels()) < count:
        assert time.time() < end, labels()
        time.sleep(0.2)

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False})
cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
ray.init(cluster.address, log_to_driver=False)
with measured_nodes(TrackingConfig(system_metrics_s=1), FileTracker(path, {})):
    until(2)
    cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
    until(3)
time.sleep(1)
size = path.stat().st_size
time.sleep(2.5)
assert path.stat().st_size == size, "measured after the end"
ray.shutdown()
cluster.shutdown()
"""


def test_every_node_is_measured_those_that_join_later_as_well(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path / "tracking.jsonl")], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
