"""A night's run of preprocessing: twelve files that cannot be used among twenty, a killed worker, a killed driver. The good shards are the same."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from dpscale.body.rendered import render_performer
from dpscale.config.schema import Config
from dpscale.data.checkpoint import marker_of
from dpscale.data.layout import RunLayout
from dpscale.preprocess.quarantine import read_quarantine
from tests.small_performer import small_model
from tests.unit.preprocess.videos import pattern, write_sound, write_video

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(600)]

SIZE, GOOD = 32, tuple(f"good{n}" for n in range(8))

ODD = {
    "missing": ({}, "no such file"),
    "empty": ({}, r"is empty \(zero bytes\)"),
    "text": ({}, "not a video that can be read"),
    "cut_off": ({}, "not a video that can be read"),
    "rotten": ({}, r"cannot be decoded past frame \d+ of 12"),
    "sound": ({}, "has sound but no picture"),
    "one_frame": ({}, "number of frames is 1, at least 2 are needed"),
    "nobody": ({}, "no person was found"),
    "folder": ({"path": "folder"}, r"number of pictures \(.+\) is 0, at least 2 are needed"),
    "too_late": ({"path": "walk.mp4", "start_s": 60.0}, r"start_s = 60 leaves 0 frames"),
    "third": ({"path": "walk.mp4", "person": 3}, "person"),
    "no_meshes": ({"path": "walk.mp4", "mesh": "text.mp4"}, r"text\.mp4"),
}
"""Settings of the performer, and what the quarantine must say. Without a path: `<name>.mp4`."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    small_model().save(folder / "base")
    film = write_video(folder / "walk.mp4", render_performer(1_000_003, "walk", 12, 10.0, 192, 1, yaw=0.0).frames, options={"g": "1"})
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video\n" * 100)
    data = film.read_bytes()
    (folder / "cut_off.mp4").write_bytes(data[: len(data) // 3])
    start = data.index(b"mdat") + len(data) // 4
    (folder / "rotten.mp4").write_bytes(data[:start] + bytes(len(data) // 2) + data[start + len(data) // 2 :])
    write_sound(folder / "sound.mp4")
    write_video(folder / "one_frame.mp4", pattern(1, 64, 64))
    write_video(folder / "nobody.mp4", np.full((4, 64, 64, 3), 90, np.uint8))
    (folder / "folder").mkdir()
    return folder


def config(inputs: Path, root: Path, odd: bool) -> Config:
    """Eight stretches of one film and, between them, twelve performers with something wrong."""
    good = [
        {"kind": "video", "name": name, "path": str(inputs / "walk.mp4"), "start_s": 0.1 * n, "end_s": 0.1 * n + 0.4} for n, name in enumerate(GOOD)
    ]
    bad = [{"kind": "video", "name": name, "path": f"{name}.mp4"} | settings for name, (settings, _) in ODD.items()]
    bad = [{key: str(inputs / value) if key in ("path", "mesh") else value for key, value in one.items()} for one in bad]
    performers = [one for n in range(12) for one in (*bad[n : n + 1], *good[n : n + 1])] if odd else good
    return Config.model_validate({
        "run": {"root": str(root)},
        "performers": performers,
        "videos": [{"performer": one["name"]} for one in performers],
        "preprocess": {"size": SIZE, "fit_steps": 5, "num_actors": 2},
        "diffusion": {"preset": "tiny", "weights": str(inputs / "base")},
    })  # fmt: skip


def hashes(settings: Config) -> dict[str, dict | None]:
    """Markers hold the hash of each shard's file."""
    layout = RunLayout.of(settings)
    return {name: marker_of(layout.shard(name, "main")) for name in GOOD}


def run(settings: Config) -> dict[str, str | None]:
    from dpscale.preprocess.on_ray import preprocess

    return {outcome.name: outcome.error for outcome in preprocess(settings, RunLayout.of(settings))}


@pytest.fixture(scope="module")
def eight(inputs: Path, ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict | None]:
    settings = config(inputs, tmp_path_factory.mktemp("eight"), odd=False)
    assert run(settings) == dict.fromkeys(GOOD)
    found = hashes(settings)
    assert len({str(marker) for marker in found.values()}) == 8
    return found


@pytest.mark.slow
def test_twelve_odd_files_among_twenty_change_no_bit_of_the_eight_good_ones(inputs: Path, eight: dict, tmp_path: Path):
    settings = config(inputs, tmp_path, odd=True)
    errors = run(settings)
    assert list(errors) == [performer.name for performer in settings.performers]
    assert {name for name, error in errors.items() if error is None} == set(GOOD)
    assert hashes(settings) == eight
    entries = read_quarantine(RunLayout.of(settings).quarantine)
    assert entries.keys() == ODD.keys()
    assert {name: entry.reason for name, entry in entries.items()} == {name: errors[name] for name in ODD}
    assert [(name, errors[name]) for name, (_, reason) in ODD.items() if not re.search(reason, errors[name] or "")] == []


@pytest.mark.slow
def test_a_killed_worker_costs_time_and_no_bit(inputs: Path, eight: dict, tmp_path: Path):
    settings = config(inputs, tmp_path, odd=False)
    killed = []

    def kill() -> None:
        wait_for(lambda: any((RunLayout.of(settings).root / "steps").glob("track-*.npz")))
        ours = psutil.Process().children(recursive=True)  # other tests' and users' Rays may run beside this one
        for worker in [process for process in ours if "MapWorker" in " ".join(process.cmdline())][:1]:
            worker.kill()
            killed.append(worker.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    errors = run(settings)
    killer.join()
    assert len(killed) == 1
    assert errors == dict.fromkeys(GOOD)
    assert hashes(settings) == eight


@pytest.mark.slow
def test_a_killed_driver_loses_no_finished_clip_and_the_same_command_gives_the_same_shards(inputs: Path, eight: dict, tmp_path: Path):
    settings, layout = config(inputs, tmp_path, odd=False), RunLayout.of(config(inputs, tmp_path, odd=False))
    (tmp_path / "config.json").write_text(settings.model_dump_json())
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path / "config.json")], env=os.environ | {"OMP_NUM_THREADS": "1"})
    wait_for(lambda: any(hashes(settings).values()) or driver.poll() is not None)
    driver.send_signal(signal.SIGKILL)
    assert driver.wait(timeout=60) == -signal.SIGKILL
    before = {name: marker for name, marker in hashes(settings).items() if marker}
    times = {name: (layout.shard(name, "main") / "frames.parquet").stat().st_mtime_ns for name in before}
    assert 1 <= len(before) < 8
    assert run(settings) == dict.fromkeys(GOOD)
    assert hashes(settings) == eight
    assert {name: (layout.shard(name, "main") / "frames.parquet").stat().st_mtime_ns for name in before} == times


DRIVER = """
import sys
from pathlib import Path
from dpscale.config.schema import Config, RayConfig
from dpscale.data.layout import RunLayout
from jobs.cluster_session import ray_session

config = Config.model_validate_json(Path(sys.argv[1]).read_text())
with ray_session(RayConfig(num_cpus=4, object_store_gib=0.3)):
    from dpscale.preprocess.on_ray import preprocess
    preprocess(config, RunLayout.of(config))
"""


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)
