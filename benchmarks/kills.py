"""What does the death of a process cost a batch, and does it change a bit?

Four videos of two performers (the packaged `tiny`, 128 px) on a Ray cluster of a head without CPUs and two nodes with two each, all on this machine.
In every run one process gets SIGKILL at a random moment: a field worker (`actor`), a refresh worker (`service`), the driver with the scheduler
(`controller`; the same call is then made again) or a node with all that runs on it (`raylet`). Frames must be those of an undisturbed run to the
bit, and every video there: `identical` and `complete` count such runs. `lost_s`: the run's length over the shortest undisturbed one's.

Six runs; `--full`: fifty. An undisturbed run comes before every ten."""

from __future__ import annotations

import multiprocessing
import os
import random
import secrets
import signal
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil

from benchmarks import arguments, finish, show
from benchmarks.inputs.several_videos import digest, named_performers, share, write_videos
from dpscale.config.load import load
from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.layout import RunLayout
from dpscale.tracking.tracker import NullTracker
from jobs.settings import CONFIGS

PERFORMERS, SIZE_PX, FRAMES = 2, 128, {"self": (8, 10), "dance": (10, 8)}
KINDS = ("actor", "service", "controller", "raylet")
_CLASSES = {"actor": "_FieldWorker", "service": "_RefreshWorker"}
NUM_KILLS, FULL_KILLS, UNDISTURBED_EVERY, SEED = 6, 50, 10, 0


@dataclass(frozen=True)
class _Kill:
    kind: str
    after_s: float
    rng: random.Random


@dataclass(frozen=True)
class _Run:
    seconds: float
    killed_at_s: float | None
    frames: list[str]


def main() -> None:
    """Undisturbed runs and those with a kill, on one cluster."""
    given = arguments(__doc__ or "")
    rng = random.Random(SEED)
    alone: list[_Run] = []
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="dpscale-bench-") as folder, _cluster() as nodes:
        inputs = _config(Path(folder), "inputs")
        videos = write_videos(inputs, FRAMES, SIZE_PX)
        for number in range(FULL_KILLS if given.full else NUM_KILLS):
            if number % UNDISTURBED_EVERY == 0:
                alone.append(_run(inputs, f"alone-{number}", videos, nodes, None))
                print(f"undisturbed: {alone[-1].seconds:.1f} s", flush=True)
            kind = KINDS[number % len(KINDS)]
            run = _run(inputs, f"kill-{number}", videos, nodes, _Kill(kind, rng.uniform(0.1, 0.9) * alone[0].seconds, rng))
            rows.append({
                "killed": kind, "at_s": run.killed_at_s, "seconds": run.seconds,
                "complete": "" not in run.frames, "identical": run.frames == alone[0].frames,
            })  # fmt: skip
            show(f"run {number + 1}", rows[-1:])
    finish("kills", given.json, _result(alone, rows), rows)


def _result(alone: list[_Run], rows: list[dict[str, Any]]) -> dict[str, Any]:
    shortest = min(run.seconds for run in alone)
    lost = {kind: [row["seconds"] - shortest for row in rows if row["killed"] == kind] for kind in KINDS}
    return {
        "runs": len(rows), "identical": sum(row["identical"] for row in rows), "complete": sum(row["complete"] for row in rows),
        "undisturbed_s": [run.seconds for run in alone], "undisturbed_identical": len({tuple(run.frames) for run in alone}) == 1,
        "lost_s": {kind: {"mean": fmean(each), "most": max(each)} for kind, each in lost.items() if each}, "seed": SEED,
    }  # fmt: skip


def _config(root: Path, name: str) -> Config:
    config = load(CONFIGS / "tiny.toml", [f'run.root="{root}"', "tracking.kind=none"])
    own: dict[str, Any] = {
        "run": config.run.model_dump() | {"name": name}, "ray": config.ray.model_dump() | {"torch_threads": 1},
        "diffusion": config.diffusion.model_dump() | {"window": 8, "stride": 4, "sampling_steps": 4},
        "joint": config.joint.model_dump() | {"steps": 400, "refresh_interval": 100, "warm_up_steps": 50},
        "scheduler": config.scheduler.model_dump() | {"slice_steps": 50, "refresh_checkpoint_s": 2},
        "performers": named_performers(PERFORMERS),
        "videos": [], "drives": [{"kind": "self", "name": "self"}, {"kind": "video", "name": "dance", "path": "none.mp4"}],
    }  # fmt: skip
    return Config.model_validate(config.model_dump() | own)


# ----------------------------------------------------------------------------------------- cluster


class _Nodes:
    """Two nodes beside a head; one that is killed is replaced."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 10**8})
        self._workers = [self._add() for _ in range(2)]

    @property
    def address(self) -> str:
        address = self._cluster.address
        assert address is not None, "the head runs"
        return address

    def kill(self, rng: random.Random) -> None:
        self._cluster.remove_node(self._workers.pop(rng.randrange(len(self._workers))), allow_graceful=False)

    def mend(self) -> None:
        while len(self._workers) < 2:
            self._workers.append(self._add())
        self._cluster.wait_for_nodes()

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=2, object_store_memory=10**8)

    def close(self) -> None:
        self._cluster.shutdown()


@contextmanager
def _cluster() -> Generator[_Nodes]:
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))  # before ray is imported; drivers inherit it
    nodes = _Nodes()
    try:
        yield nodes
    finally:
        nodes.close()


# -------------------------------------------------------------------------------------------- runs


def _run(inputs: Config, name: str, videos: list[VideoConfig], nodes: _Nodes, kill: _Kill | None) -> _Run:
    """A batch from nothing to its end, whatever is killed meanwhile."""
    config = inputs.model_copy(update={"run": inputs.run.model_copy(update={"name": name})})
    share(inputs, config)
    started = time.perf_counter()
    driver, killed_at_s = _driver(config, videos, nodes), None
    if kill is not None:
        driver.join(kill.after_s)
        _do(kill, driver, nodes)
        killed_at_s = time.perf_counter() - started
    driver.join()
    while driver.exitcode != 0:
        if kill is None or kill.kind != "controller" or driver.exitcode != -signal.SIGKILL:
            raise RuntimeError(f"{name}: the driver ended with {driver.exitcode}")
        driver = _driver(config, videos, nodes)
        driver.join()
    seconds = time.perf_counter() - started
    nodes.mend()
    return _Run(seconds, killed_at_s, [_frames(config, video) for video in videos])


def _frames(config: Config, video: VideoConfig) -> str:
    try:
        return digest(config, video)
    except FileNotFoundError:
        return ""


def _driver(config: Config, videos: list[VideoConfig], nodes: _Nodes) -> SpawnProcess:
    process = multiprocessing.get_context("spawn").Process(target=_drive, args=(config, videos, nodes.address))
    process.start()
    return process


def _drive(config: Config, videos: list[VideoConfig], address: str) -> None:
    import ray

    from dpscale.scheduler.on_ray import optimize

    ray.init(address=address, log_to_driver=False, configure_logging=False)
    errors = [outcome.error for outcome in optimize(config, RunLayout.of(config), videos, NullTracker()) if outcome.error is not None]
    if errors:
        raise RuntimeError("\n".join(errors))


def _do(kill: _Kill, driver: SpawnProcess, nodes: _Nodes) -> None:
    """As soon as there is one of the kind. Raises RuntimeError where the run ends before."""
    acts: dict[str, Callable[[], bool]] = {
        "controller": lambda: _kill_one([psutil.Process(driver.pid)], kill.rng),
        "raylet": lambda: nodes.kill(kill.rng) is None,
    }
    act = acts.get(kill.kind, lambda: _kill_one(_actors(_CLASSES[kill.kind]), kill.rng))
    while not act():
        if not driver.is_alive():
            raise RuntimeError(f"the run ended before a {kill.kind} could be killed")
        time.sleep(0.1)


def _actors(name: str) -> list[psutil.Process]:
    """Ray gives the processes of actors their class as a title."""
    mine = [process for process in psutil.Process().children(recursive=True) if process.is_running()]
    return [process for process in mine if f"ray::{name}" in " ".join(_command(process))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _kill_one(processes: list[psutil.Process], rng: random.Random) -> bool:
    if processes:
        rng.choice(processes).kill()
    return bool(processes)


if __name__ == "__main__":
    main()
