"""How many points a second go through one run's writer into a real MLflow server, and is each there exactly once after the server and its
database were killed half-way? 16 Ray tasks log at once (100,000 points with `--full`, else 20,000); MLflow's server has Postgres behind it where
Debian's is installed, else SQLite. Half-way, counted in the database, both are killed without warning and started again.

`writers_points_per_s`: how fast the tasks got rid of their points, which is what training feels. `points_per_s`: until all rows are in the
database, the outage included. `there`, `different`: rows of the metrics table, and different (run, name, step) among them."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import arguments, finish
from dpscale.config.schema import Config, RayConfig, RunConfig, TrackingConfig
from dpscale.data.layout import RunLayout
from dpscale.tracking.tracker import BATCH, Tracker
from jobs.cluster_session import ray_session
from tests.mlflow_server import MlflowServer, Postgres, mlflow_server, rows, until

NUM_WRITERS, DRAIN_S = 16, 600.0
COUNT = "SELECT count(*) FROM metrics WHERE key = 'loss'"
EVERY = """SELECT runs.name, metrics.step, metrics.value, count(*) FROM metrics JOIN runs ON runs.run_uuid = metrics.run_uuid
           WHERE metrics.key = 'loss' GROUP BY runs.name, metrics.step, metrics.value"""


@dataclass(frozen=True)
class Storm:
    """What became of the points of one storm."""

    points: int
    there: int
    different: int
    wrong: int
    """Points that are missing, doubled or have another value."""
    there_when_killed: int
    down_s: float
    writers_points_per_s: float
    points_per_s: float


def value(writer: int, step: int) -> float:
    """Of one point: told apart from every other's."""
    return writer + step / 2**20


def write(tracker: Tracker, writer: int, num_points: int) -> float:
    """Logs points as fast as it can; returns the seconds that took."""
    start = time.monotonic()
    key = tracker.start("storm", f"writer-{writer:02d}", {"points": num_points})
    for step in range(num_points):
        tracker.metrics(key, {"loss": value(writer, step)}, step)
    tracker.finish(key, "FINISHED")
    return time.monotonic() - start


def storm(server: MlflowServer, postgres: Postgres | None, root: Path, num_points: int) -> Storm:
    """16 writers, one kill of everything half-way. Ray must be initialised, and the server must hold no other run's `loss`."""
    import ray  # reads its token at import: not before ray_session has made one

    from dpscale.tracking.on_ray import start_tracker

    config = Config(run=RunConfig(root=root, name="storm"), tracking=TrackingConfig(uri=server.uri, drain_s=DRAIN_S))
    tracker = start_tracker(config, RunLayout.of(config))
    start = time.monotonic()
    writer = ray.remote(num_cpus=0.1)(write)
    writers = [writer.remote(tracker, i, num_points // NUM_WRITERS) for i in range(NUM_WRITERS)]
    until(lambda: rows(server.database, COUNT)[0][0] >= num_points // 2, "half of the points", DRAIN_S, every_s=1)
    killed = time.monotonic()
    server.kill()
    if postgres is not None:
        postgres.kill()
        time.sleep(1)
        postgres.start()
    there_when_killed = rows(server.database, COUNT)[0][0]
    server.start()
    down_s = time.monotonic() - killed
    seconds = ray.get(writers)
    tracker.finish(BATCH, "FINISHED")
    tracker.flush()
    until(lambda: rows(server.database, COUNT)[0][0] >= num_points, "all points", DRAIN_S, every_s=1)
    total_s = time.monotonic() - start
    return _counted(server, num_points, there_when_killed, down_s, max(seconds), total_s)


def _counted(server: MlflowServer, num_points: int, there_when_killed: int, down_s: float, writing_s: float, total_s: float) -> Storm:
    found = {(name, step): (number, times) for name, step, number, times in rows(server.database, EVERY)}
    expected = {(f"storm/writer-{i:02d}", step): (value(i, step), 1) for i in range(NUM_WRITERS) for step in range(num_points // NUM_WRITERS)}
    wrong = sum(found.get(point) != at for point, at in expected.items()) + len(found.keys() - expected.keys())
    there = rows(server.database, COUNT)[0][0]
    return Storm(num_points, there, len(found), wrong, there_when_killed, down_s, num_points / writing_s, num_points / total_s)


def main() -> None:
    """One storm."""
    given = arguments(__doc__ or "")
    with tempfile.TemporaryDirectory() as folder, ray_session(RayConfig(num_cpus=4, object_store_gib=0.3)):
        with mlflow_server(Path(folder)) as (server, postgres):
            result = storm(server, postgres, Path(folder) / "runs", 100_000 if given.full else 20_000)
        row = {"database": "postgres" if postgres else "sqlite", "writers": NUM_WRITERS, **asdict(result)}
    finish("tracking", given.json, {"metric": "points_per_s", "value": result.points_per_s, "exactly_once": result.wrong == 0}, [row])
    if result.wrong:
        raise RuntimeError(f"{result.wrong} points are missing, doubled or wrong")


if __name__ == "__main__":
    main()
