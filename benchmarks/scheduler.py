"""What does the scheduler gain for eight short videos of four performers, for real, on this machine?

`sequential`: one video after the other, each in a process of its own that loads the diffusion model and runs Algorithm 1 (joint.loop).
`ray_tasks`: the same function as one plain Ray task a video, one CPU each. `scheduler`: scheduler.on_ray.optimize with two mixed workers.
Ray runs already in both of its ways; starting workers, importing torch and loading the model count. Every way has its own folder with the
same shards and weights, and one torch thread a process, so that the frames can be (and must be) the same to the bit: `identical`. Ways
take turns; of several rounds (`--full`: three) the fastest one of each counts.

`makespan_over_bound`: over what nobody can be faster than: all videos' service times, as the sequential processes measured them without start
and loading, spread evenly over the cores, or the longest video's own. A network of sd21's shape with half its widths (1.5 GiB) at 64 px: its
calls are small, while loading it costs what it costs."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import arguments, finish
from benchmarks.inputs.half_sd21 import write_half_sd21
from benchmarks.inputs.several_videos import digest, named_performers, share, write_videos
from dpscale.config.load import load
from dpscale.config.schema import Config, RayConfig
from dpscale.config.sources import VideoConfig
from dpscale.data.checkpoint import write_json
from dpscale.data.layout import RunLayout
from dpscale.diffusion.weights import load_model
from dpscale.field.loss import Losses
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.loop import optimise_on_disk
from dpscale.joint.performers import PerformerWeights
from dpscale.joint.refresh import DiffusionRefresh
from dpscale.joint.video import load_task
from dpscale.tracking.tracker import NullTracker
from jobs.cluster_session import ray_session
from jobs.settings import CONFIGS

PERFORMERS, SIZE_PX = 4, 64
FRAMES = {"self": (6, 8, 10, 12), "dance": (12, 10, 8, 6)}
"""Of the new videos, by drive and performer."""


def main() -> None:
    """Each way in turn."""
    given = arguments(__doc__ or "")
    ways: dict[str, Callable[[Config, list[VideoConfig]], None]] = {"sequential": _sequential, "ray_tasks": _ray_tasks, "scheduler": _scheduler}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    frames: dict[str, list[str]] = {}
    services: list[list[float]] = []
    with tempfile.TemporaryDirectory(prefix="dpscale-bench-") as folder:
        os.environ["TMPDIR"] = folder  # of the mapped weights
        os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray spells it so; as the processes of the sequential way
        inputs = _config(Path(folder), "inputs")
        write_half_sd21(Path(str(inputs.diffusion.weights)))
        videos = write_videos(inputs, FRAMES, SIZE_PX)
        with ray_session(RayConfig(num_cpus=os.cpu_count() or 1, object_store_gib=0.3)):
            for number in range(3 if given.full else 1):
                for way, make in ways.items():
                    config = _config(Path(folder), f"{way}-{number}")
                    share(inputs, config)
                    started = time.perf_counter()
                    make(config, videos)
                    seconds[way].append(time.perf_counter() - started)
                    print(f"{way}: {seconds[way][-1]:.1f} s", flush=True)
                    frames[f"{way}-{number}"] = [digest(config, video) for video in videos]
                    if way == "sequential":
                        services.append([json.loads(_times_path(config, video).read_text())["service_s"] for video in videos])
    finish("scheduler", given.json, _result(seconds, frames, np.array(services).min(0)), [
        {"way": way, "makespan_s": min(seconds[way]), "rounds": len(seconds[way])} for way in ways
    ])  # fmt: skip


def _result(seconds: dict[str, list[float]], frames: dict[str, list[str]], service_s: np.ndarray) -> dict[str, Any]:
    cores = os.cpu_count() or 1
    best = {way: min(each) for way, each in seconds.items()}
    bound = max(service_s.sum() / cores, service_s.max())
    return {
        "speedup_vs_sequential": best["sequential"] / best["scheduler"], "speedup_vs_ray_tasks": best["ray_tasks"] / best["scheduler"],
        "makespan_over_bound": best["scheduler"] / bound, "ray_tasks_over_bound": best["ray_tasks"] / bound,
        "identical": len({tuple(each) for each in frames.values()}) == 1,
        "bound_s": bound, "service_s": service_s.tolist(), "seconds": seconds, "videos": len(service_s), "performers": PERFORMERS,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------ inputs


def _config(root: Path, name: str) -> Config:
    config = load(CONFIGS / "tiny.toml", [f'run.root="{root}"', "tracking.kind=none"])
    own: dict[str, Any] = {
        "run": config.run.model_dump() | {"name": name},
        "ray": config.ray.model_dump() | {"torch_threads": 1},
        "diffusion": config.diffusion.model_dump()
        | {"preset": "sd21", "weights": str(root / "base"), "latent_size": SIZE_PX // 8, "sampling_steps": 4, "window": 8, "stride": 4},
        "joint": config.joint.model_dump() | {"steps": 300, "refresh_interval": 100, "warm_up_steps": 50},
        "scheduler": config.scheduler.model_dump()
        | {"mixed": True, "field_workers": 1, "refresh_workers": 1, "slice_steps": 100, "warm_videos": 8},
        "performers": named_performers(PERFORMERS),
        "videos": [], "drives": [{"kind": "self", "name": "self"}, {"kind": "video", "name": "dance", "path": "none.mp4"}],
    }  # fmt: skip
    return Config.model_validate(config.model_dump() | own)


# -------------------------------------------------------------------------------------------- ways


def _alone(config: Config, video: VideoConfig) -> None:
    """One video from nothing: what a script for one video does."""
    torch.set_num_threads(config.ray.torch_threads)
    layout, model = RunLayout.of(config), load_model(config.diffusion)
    PerformerWeights(model).use(layout.finetune(video.performer))
    started = time.perf_counter()
    task = load_task(config, layout, video)
    optimise_on_disk(task, VideoStore.of(config, layout, video), DiffusionRefresh(model, task), _log_nothing)
    write_json(_times_path(config, video), {"service_s": time.perf_counter() - started})


def _log_nothing(step: int, losses: Losses) -> None:
    pass


def _times_path(config: Config, video: VideoConfig) -> Path:
    return RunLayout.of(config).root / f"times-{video.performer}-{video.drive}.json"


def _sequential(config: Config, videos: list[VideoConfig]) -> None:
    context = multiprocessing.get_context("spawn")
    for video in videos:
        process = context.Process(target=_alone, args=(config, video))
        process.start()
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"{video} failed in a process of its own")


def _ray_tasks(config: Config, videos: list[VideoConfig]) -> None:
    import ray

    task = ray.remote(num_cpus=1)(_alone)
    ray.get([task.remote(config, video) for video in videos])


def _scheduler(config: Config, videos: list[VideoConfig]) -> None:
    from dpscale.scheduler.on_ray import optimize

    failed = [outcome for outcome in optimize(config, RunLayout.of(config), videos, NullTracker()) if outcome.error is not None]
    if failed:
        raise RuntimeError(f"videos failed: {failed}")


if __name__ == "__main__":
    main()
