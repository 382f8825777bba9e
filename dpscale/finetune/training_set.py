"""Rendered performers for base training: drawn once, kept as .npz, picked up again by the next sitting.

Each clip is kept with two poses: the renderer's exact one, and the one that a body fit finds from noisy landmarks and the outline,
which is a little off, as that of a filmed performer is."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter1d

from dpscale.body.fit import fit_body
from dpscale.body.fit_skeleton import LANDMARK_OF_KEYPOINT
from dpscale.body.outline import Outlines
from dpscale.body.parametric import load_body
from dpscale.body.rendered import HELD_OUT_SEED, TRAINING_MOTIONS, RenderedClip, render_performer
from dpscale.body.surface_maps import iuv_map, rasterise_body
from dpscale.config.schema import PretrainConfig
from dpscale.data.checkpoint import write_atomically
from dpscale.diffusion.reference import KnownFrames, ReferencePictures, apart, reference_pictures

POSES = ("exact", "fitted")
"""The two poses of each clip, in the order of axis V."""

_LANDMARK_NOISE_PX, _WORLD_NOISE_M = 1.0, 0.03
"""Of 128 px: BlazePose's error on rendered performers (1.6 to 6 px of 256)."""
_FIT_STEPS = 120


@dataclass(frozen=True)
class RenderedSet:
    """F frames of each of P performers, with V = 2 poses."""

    seeds: tuple[int, ...]
    frames: UInt8[np.ndarray, "P F H W 3"]
    keypoints: Float[np.ndarray, "P V F 18 3"]
    iuv: UInt8[np.ndarray, "P V F H W 3"]
    warped: UInt8[np.ndarray, "P V F H W 3"]
    """Other frames of the clip carried into each frame's pose (ReferencePictures)."""
    background: UInt8[np.ndarray, "P V H W 3"]


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
    with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn"), initializer=end_with, initargs=(os.getpid(),)) as pool:
        jobs = [pool.submit(_render_one, seed, settings, size, folder) for seed in missing]
        for done, job in enumerate(as_completed(jobs), 1):
            job.result()
            log(done, len(missing))
    clips = [np.load(_path(folder, seed)) for seed in seeds]
    names = ("frames", "keypoints", "iuv", "warped", "background")
    return RenderedSet(tuple(seeds), *(np.stack([clip[name] for clip in clips]) for name in names))


def end_with(parent: int) -> None:
    """Ends this process within seconds of its parent's end, also when that was killed: a pool's own processes would draw on."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _path(folder: Path, seed: int) -> Path:
    return folder / f"performer_{seed:07d}.npz"


def _render_one(seed: int, settings: PretrainConfig, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng([seed, 2])
    motion = str(rng.choice(TRAINING_MOTIONS))
    clip = render_performer(seed, motion, settings.num_frames, settings.fps, size, start_s=float(rng.uniform(0, 2)), with_flow=False)
    poses = [(clip.pose.keypoints, clip.pose.iuv), _fitted(clip, size, rng)]
    pictures = [_references(clip, keypoints, iuv, rng) for keypoints, iuv in poses]
    arrays = {
        "frames": clip.frames,
        "keypoints": np.stack([keypoints for keypoints, _ in poses]),
        "iuv": np.stack([iuv for _, iuv in poses]),
        "warped": np.stack([p.warped for p in pictures]),
        "background": np.stack([p.background for p in pictures]),
    }
    write_atomically(_path(folder, seed), lambda path: np.savez_compressed(path, **arrays))


def _fitted(clip: RenderedClip, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints and IUV as preprocessing finds them: landmarks with noise that drifts in time, and the body fitted to them and the outline."""
    body, motion, num_frames = load_body(), clip.pose.motion, len(clip.frames)
    posed = np.concatenate([body.skin(body.shaped(clip.pose.shape), r[None], t[None]) for r, t in zip(motion.rotations, motion.root, strict=True)])
    points = {name: body.keypoint_regressor[body.keypoint_names.index(name)] @ posed for name in LANDMARK_OF_KEYPOINT}
    world, landmarks = np.zeros((num_frames, 33, 3)), np.zeros((num_frames, 33, 3))
    for name, index in LANDMARK_OF_KEYPOINT.items():
        seen = points[name][:, :2] / points[name][:, 2:] * motion.focal_px + motion.center_px
        landmarks[:, index] = np.concatenate([seen + _drift(rng, num_frames, 2, _LANDMARK_NOISE_PX * size / 128), np.ones((num_frames, 1))], 1)
        world[:, index] = points[name] + _drift(rng, num_frames, 3, _WORLD_NOISE_M)
    world -= world[:, [23, 24]].mean(1, keepdims=True)
    outlines = Outlines(clip.mask, float(size), num_frames)
    focal_px = motion.focal_px * float(np.exp(rng.normal(0, 0.2)))
    shape, fitted = fit_body(landmarks, world, focal_px, motion.center_px, _FIT_STEPS, body, outlines)
    shaped = body.shaped(shape)
    vertices = (body.skin(shaped, r[None].astype(float), t[None].astype(float))[0] for r, t in zip(fitted.rotations, fitted.root, strict=True))
    iuv = np.stack([iuv_map(body, rasterise_body(body, v, fitted.focal_px, fitted.center_px, size, size)) for v in vertices])
    keypoints = clip.pose.keypoints.copy()
    keypoints[..., :2] += _drift(rng, num_frames, 36, _LANDMARK_NOISE_PX * size / 128).reshape(-1, 18, 2)
    return keypoints, iuv


def _drift(rng: np.random.Generator, num_frames: int, channels: int, sigma: float) -> Float[np.ndarray, "N c"]:
    """Noise of an estimator: half of it stays for the clip, half wanders."""
    wander = gaussian_filter1d(rng.normal(size=(num_frames, channels)), 1.0, axis=0) * 1.7
    return sigma * (rng.normal(size=channels) + wander) / np.sqrt(2)


def _references(clip: RenderedClip, keypoints: np.ndarray, iuv: np.ndarray, rng: np.random.Generator) -> ReferencePictures:
    """Each frame from others of its clip, more than a random gap away, and only from a random part of them: seldom from all around."""
    num_frames = len(clip.frames)
    few = np.sort(rng.choice(num_frames, int(rng.integers(2, num_frames + 1)), replace=False))
    usable = apart(num_frames, int(rng.integers(1, max(2, num_frames // 3))))[:, few]
    usable |= ~usable.any(1, keepdims=True) & (np.arange(num_frames)[:, None] != few)
    return reference_pictures(KnownFrames(clip.frames[few], iuv[few], keypoints[few], clip.mask[few]), keypoints, iuv, usable)
