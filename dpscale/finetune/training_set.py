"""Rendered performers for base training: drawn once, kept as .npz, picked up again by the next sitting."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from dpscale.body.rendered import HELD_OUT_SEED, TRAINING_MOTIONS, render_performer
from dpscale.config.schema import PretrainConfig
from dpscale.data.checkpoint import write_atomically


@dataclass(frozen=True)
class RenderedSet:
    """F frames of each of P performers."""

    seeds: tuple[int, ...]
    frames: UInt8[np.ndarray, "P F H W 3"]
    keypoints: Float[np.ndarray, "P F 18 3"]
    iuv: UInt8[np.ndarray, "P F H W 3"]


def training_seeds(settings: PretrainConfig) -> tuple[list[int], list[int]]:
    """Seeds of the performers that train and of those that are measured only; all below HELD_OUT_SEED."""
    total = settings.num_performers + settings.held_out_performers
    if total > HELD_OUT_SEED:
        raise ValueError(f"pretrain: {total} performers reach the seeds from {HELD_OUT_SEED} on, which are never trained on")
    seeds = list(range(total))
    return seeds[: settings.num_performers], seeds[settings.num_performers :]


def render_training_set(seeds: list[int], settings: PretrainConfig, size: int, folder: Path, num_processes: int, log) -> RenderedSet:
    """Renders what `folder` does not hold yet, in parallel, then reads everything. `log(done, total)` is told about each clip."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [seed for seed in seeds if not _path(folder, seed).exists()]
    with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_render_one, seed, settings, size, folder) for seed in missing]
        for done, job in enumerate(as_completed(jobs), 1):
            job.result()
            log(done, len(missing))
    clips = [np.load(_path(folder, seed)) for seed in seeds]
    return RenderedSet(tuple(seeds), *(np.stack([clip[key] for clip in clips]) for key in ("frames", "keypoints", "iuv")))


def _path(folder: Path, seed: int) -> Path:
    return folder / f"performer_{seed:07d}.npz"


def _render_one(seed: int, settings: PretrainConfig, size: int, folder: Path) -> None:
    rng = np.random.default_rng([seed, 2])
    motion = str(rng.choice(TRAINING_MOTIONS))
    clip = render_performer(seed, motion, settings.num_frames, settings.fps, size, start_s=float(rng.uniform(0, 2)), with_flow=False)
    arrays = {"frames": clip.frames, "keypoints": clip.pose.keypoints, "iuv": clip.pose.iuv}
    write_atomically(_path(folder, seed), lambda path: np.savez_compressed(path, **arrays))
