"""One run's record in a real MLflow server that is killed, restarted, or not there at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator

import pytest
import ray

from benchmarks.tracking import storm
from dpscale.config.load import resolved
from dpscale.config.schema import Config, RunConfig, TrackingConfig
from dpscale.data.checkpoint import write_json
from dpscale.data.layout import RunLayout
from dpscale.tracking.on_ray import start_tracker
from dpscale.tracking.spooled import pending
from dpscale.tracking.tracker import BATCH, spool_folder
from jobs.tracking import tracked
from tests.mlflow_server import NO_POSTGRES, MlflowServer, Postgres, mlflow_server, postgres_programs, rows

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(600)]

POINTS = 16_000
"""`python -m benchmarks.tracking --full` does the same with 100,000."""
OWN = "SELECT count(*), count(DISTINCT metrics.step) FROM metrics JOIN runs ON runs.run_uuid = metrics.run_uuid WHERE metrics.key = '{}'"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MlflowServer, Postgres | None]]:
    if postgres_programs() is None:
        warnings.warn(NO_POSTGRES, stacklevel=1)
    with mlflow_server(tmp_path_factory.mktemp("server")) as running:
        yield running


def test_the_database_is_postgres(server):
    if server[1] is None:
        pytest.skip(NO_POSTGRES)
    assert "PostgreSQL" in rows(server[0].database, "SELECT version()")[0][0]
    assert rows(server[0].database, "SELECT count(*) FROM experiments")[0][0] >= 1


def test_sixteen_writers_and_a_killed_server_leave_every_point_exactly_once(server, tmp_path):
    result = storm(*server, tmp_path, POINTS)
    print(result)
    assert result.wrong == 0
    assert result.there == result.different == POINTS
    assert POINTS / 4 < result.there_when_killed < POINTS  # it was killed while points were on their way


def test_a_run_without_a_server_finishes_and_a_later_process_sends_its_record(server, tmp_path, caplog):
    config = Config(run=RunConfig(root=tmp_path, name="alone"), tracking=TrackingConfig(uri=server[0].uri, system_metrics_s=1))
    layout = RunLayout.of(config)
    server[0].kill()
    start = time.monotonic()
    with tracked(config, layout, []) as tracker:
        key = tracker.start("optimize", "ann--self", {"steps": 500})
        for step in range(500):
            tracker.metrics(key, {"alone": step / 2}, step)
        tracker.finish(key, "FINISHED")
        time.sleep(2.5)
    assert time.monotonic() - start < 60
    assert pending(spool_folder(layout))
    assert "dpscale report" in caplog.text

    server[0].start()
    write_json(layout.resolved_config, resolved(config))
    code = (
        "import sys; from pathlib import Path; from dpscale.config.load import load; from dpscale.data.layout import RunLayout\n"
        "from jobs.tracking import replay; config = load(Path(sys.argv[1])); replay(config, RunLayout.of(config))"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, str(layout.resolved_config)], check=True, timeout=120)
        assert not pending(spool_folder(layout))
        assert rows(server[0].database, OWN.format("alone")) == [(500, 500)]
    assert rows(server[0].database, "SELECT count(*) FROM metrics WHERE key LIKE 'system/%/cpu_utilization_percentage'")[0][0] >= 1
    statuses = "SELECT runs.name, runs.status FROM runs WHERE runs.name IN ('alone', 'optimize/ann--self') ORDER BY runs.name"
    assert rows(server[0].database, statuses) == [("alone", "FINISHED"), ("optimize/ann--self", "FINISHED")]


def test_a_writer_that_is_killed_leaves_no_gap_and_no_double(server, tmp_path):
    config = Config(run=RunConfig(root=tmp_path, name="killed"), tracking=TrackingConfig(uri=server[0].uri, drain_s=120))
    tracker = start_tracker(config, RunLayout.of(config))
    key = tracker.start("optimize", "ann--self", {})
    for step in range(6000):
        tracker.metrics(key, {"killed": step / 2}, step)
        if step in (2000, 4000):
            os.kill(ray.get(tracker._actor.__ray_call__.remote(lambda writer: os.getpid())), signal.SIGKILL)
    tracker.finish(BATCH, "FINISHED")
    tracker.flush()
    assert rows(server[0].database, OWN.format("killed")) == [(6000, 6000)]
