"""A search on Tune: trials equal the same settings run alone, whatever is killed, and the same search has the same table."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import ray

from dpscale.config.load import check, resolved
from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.layout import RunLayout
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.loop import optimise_on_disk
from dpscale.joint.refresh import RefreshService
from dpscale.joint.video import load_task
from dpscale.search.on_ray import search
from dpscale.search.program import alone, together
from dpscale.search.record import Row, chosen
from dpscale.search.space import points
from dpscale.search.trial import Trial
from dpscale.tracking.tracker import FileTracker, NullTracker
from tests.ray.test_optimize_on_ray import VIDEOS, make_config, write_inputs
from tests.small_performer import small_model

ROOT = Path(__file__).parents[2]
INTERVALS = [4, 8, 16, 24]
TIMES = ("field_s", "refresh_s", "wall_s", "computed_steps", "computed_refreshes")
"""What may differ between two searches."""


def search_config(root: Path, weights: Path, name: str, stopping: dict, **joint: object) -> Config:
    plain = resolved(make_config(root, weights, name, {"steps": 24} | joint))
    return check(plain | {"search": {"space": {"joint": {"refresh_interval": INTERVALS}}, "stopping": stopping, "trial_cpus": 1}})


def run_search(root: Path, weights: Path, name: str, stopping: dict, tracker=None, **joint: object) -> list[Row]:
    config = search_config(root, weights, name, stopping, **joint)
    found = points(config)
    assert found is not None
    return search(config, RunLayout.of(config), VIDEOS, found, tracker or NullTracker())


def table(rows: list[Row]) -> list[dict]:
    return [{name: value for name, value in asdict(row).items() if name not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    small_model().save(folder)
    return folder


def frames_alone(root: Path, weights: Path, video: VideoConfig, interval: int) -> np.ndarray:
    config = make_config(root, weights, f"alone-{interval}", {"steps": 24, "refresh_interval": interval})
    layout = RunLayout.of(config)
    write_inputs(layout)
    store = VideoStore.of(config, layout, video)
    refresh = functools.partial(RefreshService(config, layout).answer, video)
    optimise_on_disk(load_task(config, layout, video), store, refresh, lambda *_: None)
    return np.load(store.folder / "result" / "frames.npz")["ivr_opt"]


def trials_of(config: Config) -> dict[tuple[str, int], Trial]:
    layout = RunLayout.of(config)
    found = points(config)
    assert found is not None
    return {(layout.video_name(video), n): Trial.of(config, layout, video, point) for video in VIDEOS for n, point in enumerate(found)}


def test_every_trial_equals_its_settings_alone_and_nothing_is_computed_twice(ray_session: None, weights: Path, tmp_path: Path) -> None:
    config = search_config(tmp_path, weights, "whole", {"kind": "none"})
    layout = RunLayout.of(config)
    write_inputs(layout)
    tracked = tmp_path / "tracking.jsonl"
    rows = run_search(tmp_path, weights, "whole", {"kind": "none"}, FileTracker(tracked, {}))
    assert [(row.video, row.settings["joint.refresh_interval"]) for row in rows] == [(v, i) for v in ("ann--self", "ben--self") for i in INTERVALS]
    assert {row.status for row in rows} == {"finished"}, [row.error for row in rows]
    trials = trials_of(config)
    for number, interval in ((0, 4), (3, 24)):
        trial = trials["ann--self", number]
        made = np.load(trial.layout.joint(trial.video) / "result" / "frames.npz")["ivr_opt"]
        np.testing.assert_array_equal(made, frames_alone(tmp_path, weights, VIDEOS[0], interval))
    whole = [(trial.program, len(trial.program.operations)) for trial in trials.values()]
    assert sum(row.computed_steps for row in rows) == together(whole).steps < alone(whole).steps
    assert sum(row.computed_refreshes for row in rows) == len(together(whole).answers) < len(alone(whole).answers)
    best = chosen(rows, price_db=0.1)
    assert all(best[video].recommended in best[video].front for video in best)
    events = [json.loads(line) for line in tracked.read_text().splitlines()]
    assert {event["key"] for event in events if event["event"] == "finish"} == {f"search/{row.video}-{row.point:03d}" for row in rows}
    again = run_search(tmp_path, weights, "whole", {"kind": "none"})
    assert [asdict(row) for row in again] == [asdict(row) for row in rows], "a finished search is read, not run"


HALVING = {"kind": "halving", "first_rung": 0.25, "reduction": 2.0}


@pytest.fixture(scope="module")
def halved(ray_session: None, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    root = tmp_path_factory.mktemp("halved")
    write_inputs(RunLayout.of(search_config(root, weights, "halved", HALVING)))
    return run_search(root, weights, "halved", HALVING)


def test_halving_leaves_the_worse_behind(halved: list[Row]) -> None:
    """Rungs at 6 and 12 of 24 steps. At 6 three states differ (8, 16 and 24 have not parted yet), at 12 two or three."""
    for video in ("ann--self", "ben--self"):
        rows = [row for row in halved if row.video == video]
        assert {row.error for row in rows} == {""}
        assert "finished" in {row.status for row in rows}
        behind = [row for row in rows if row.status == "left behind"]
        assert behind
        assert {row.step for row in behind} <= {6, 12}
        assert all(row.step == 24 for row in rows if row.status == "finished")
        assert chosen(halved, 0.1)[video].recommended in {row.point for row in rows if row.status == "finished"}


@pytest.mark.slow
def test_a_killed_driver_is_continued_to_the_same_table(ray_session: None, weights: Path, tmp_path: Path, halved: list[Row]) -> None:
    """kill -9 of a driver of its own, on the same cluster, after the first stretch has ended; then the same call again."""
    layout = RunLayout.of(search_config(tmp_path, weights, "halved", HALVING))
    write_inputs(layout)
    code = (
        "import sys, ray; from pathlib import Path; from tests.ray.test_search_on_ray import HALVING, run_search; "
        "ray.init(address=sys.argv[1], log_to_driver=False); run_search(Path(sys.argv[2]), Path(sys.argv[3]), 'halved', HALVING)"
    )
    address = ray.get_runtime_context().gcs_address
    driver = subprocess.Popen(
        [sys.executable, "-c", code, address, str(tmp_path), str(weights)], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    until = time.monotonic() + 120
    while not list((layout.search / "tune").glob("*/*/result.json")) and time.monotonic() < until and driver.poll() is None:
        time.sleep(0.05)
    assert driver.poll() is None, "the driver ended before it could be killed"
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert list(layout.search.glob("prefixes/*/*/checkpoints")), "it had begun"
    rows = run_search(tmp_path, weights, "halved", HALVING)
    assert table(rows) == table(halved)


@pytest.mark.slow
def test_a_population_ends_the_same_again_and_its_best_way_can_be_made_alone(ray_session: None, weights: Path, tmp_path: Path) -> None:
    stopping = {"kind": "pbt", "exchange_every": 0.25, "replaced": 0.5}
    tables = []
    for name in ("one", "two"):
        plain = resolved(search_config(tmp_path, weights, name, stopping, refresh_interval=8))
        plain["search"]["space"] = {"joint": {"flow_weight": {"min": 0.2, "max": 5.0, "log": True}, "strength_to": [0.2, 0.3, 0.5]}}
        config = check(plain | {"search": plain["search"] | {"searcher": {"kind": "random", "num_points": 4}}})
        layout = RunLayout.of(config)
        write_inputs(layout)
        rows = search(config, layout, VIDEOS, points(config), NullTracker())
        assert [(row.status, row.step) for row in rows] == [("finished", 24)] * 8, [row.error for row in rows]
        tables.append(table(rows))
    assert tables[0] == tables[1]
    changed = [row for row in rows if "joint.changes" in row.settings]
    assert len(changed) >= 4, "at each of three exchanges two of four go on from the others"
    assert sum(row.computed_steps for row in rows) == 2 * config.joint.warm_up_steps + 8 * 24, "the warm-up is shared"
    one = next(row for row in changed if row.video == "ann--self")
    trial = Trial.of(config, layout, VIDEOS[0], one.settings)
    made = np.load(trial.layout.joint(VIDEOS[0]) / "result" / "frames.npz")["ivr_opt"]
    alone = check(resolved(trial.config) | {"run": {"root": str(tmp_path), "name": "alone"}})
    own = RunLayout.of(alone)
    write_inputs(own)
    refresh = functools.partial(RefreshService(alone, own).answer, VIDEOS[0])
    optimise_on_disk(load_task(alone, own, VIDEOS[0]), VideoStore.of(alone, own, VIDEOS[0]), refresh, lambda *_: None)
    np.testing.assert_array_equal(np.load(own.joint(VIDEOS[0]) / "result" / "frames.npz")["ivr_opt"], made)
