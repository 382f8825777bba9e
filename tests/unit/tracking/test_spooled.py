"""A run's record on a disk of its own, with a real MLflow store (SQLite) that comes and goes."""

from __future__ import annotations

import socket
import time

import pytest

from dpscale.config.schema import Config, RunConfig, TrackingConfig
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError
from dpscale.tracking import spooled as spooled_module
from dpscale.tracking.mlflow_tracker import MlflowStore
from dpscale.tracking.spooled import SpooledTracker, pending
from dpscale.tracking.tracker import BATCH, spool_folder
from tests.mlflow_server import free_port


def tracker_of(tmp_path, **settings):
    config = Config(run=RunConfig(root=tmp_path, name="one"), tracking=TrackingConfig(**settings))
    layout = RunLayout.of(config)
    return SpooledTracker(spool_folder(layout), MlflowStore(config, layout), config.tracking)


def test_with_nobody_there_the_run_goes_on_and_the_record_waits(tmp_path, caplog):
    start = time.monotonic()
    tracker = tracker_of(tmp_path, uri=f"http://127.0.0.1:{free_port()}")
    for step in range(1000):
        tracker.metrics(BATCH, {"loss": 1.0}, step)
    tracker.finish(BATCH, "FINISHED")
    tracker.flush()
    tracker.close()
    assert time.monotonic() - start < 15
    assert "the run goes on" in caplog.text
    assert "sends it later" in caplog.text
    assert pending(tmp_path / "one" / "tracking")


def test_a_server_that_never_answers_holds_up_nobody(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        tracker = tracker_of(tmp_path, uri=f"http://127.0.0.1:{server.getsockname()[1]}", drain_s=1)
        start = time.monotonic()
        for step in range(1000):
            tracker.metrics(BATCH, {"loss": 1.0}, step)
        assert time.monotonic() - start < 2
        tracker.flush()
        assert time.monotonic() - start < 6
        tracker.close()
    assert pending(tmp_path / "one" / "tracking")


def test_a_full_spool_drops_points_and_nothing_else(tmp_path, caplog):
    tracker = tracker_of(tmp_path, uri=f"http://127.0.0.1:{free_port()}", spool_gib=2e-5)
    for step in range(1000):
        tracker.metrics(BATCH, {"loss": 1.0}, step)
    size = sum(path.stat().st_size for path in (tmp_path / "one" / "tracking" / "events").glob("*.jsonl"))
    tracker.finish(BATCH, "FINISHED")
    tracker.close()
    assert size < 2e-5 * 2**30 + 200
    assert caplog.text.count("points are dropped") == 1
    (path,) = (tmp_path / "one" / "tracking" / "events").glob("*.jsonl")
    assert '"finish"' in path.read_text().splitlines()[-1]


def test_one_writer_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(spooled_module, "LOCK_S", 0.3)
    first = tracker_of(tmp_path, uri=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(InputError, match="another process"):
        tracker_of(tmp_path, uri=f"http://127.0.0.1:{free_port()}")
    first.close()
    tracker_of(tmp_path, uri=f"http://127.0.0.1:{free_port()}").close()


def test_a_folder_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "tracking").touch()
    with pytest.raises(InputError, match=r"tracking\.kind"):
        tracker_of(tmp_path, uri=f"http://127.0.0.1:{free_port()}")
