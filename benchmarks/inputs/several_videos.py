"""Inputs of joint optimisations without preprocessing and finetuning: rendered performers, and weights a little off the base."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from dpscale.body.rendered import HELD_OUT_SEED, render_performer
from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig, VideoPerformer
from dpscale.data.checkpoint import commit_folder
from dpscale.data.layout import RunLayout
from dpscale.data.shards import write_clip
from dpscale.data.types import Clip
from dpscale.diffusion.delta import FINETUNED, save_delta
from dpscale.diffusion.weights import PoseVideoModel, load_model
from dpscale.finetune.decoder import trainable_decoder
from dpscale.finetune.trainable import trainable_denoiser
from dpscale.joint.checkpoint import VideoStore

KNOWN = 8
"""Frames of a performer's known video."""


def named_performers(count: int) -> list[dict[str, object]]:
    """The table `performers` of settings; their footage is never read."""
    return [VideoPerformer(name=_name(number), path=Path("none.mp4")).model_dump() for number in range(count)]


def write_videos(config: Config, frames: Mapping[str, tuple[int, ...]], size_px: int) -> list[VideoConfig]:
    """Shards and deltas, each performer's a little further off the base. `frames`: of each drive ("self" is the own video), for each
    performer, how many; the videos of one performer follow each other."""
    layout, model = RunLayout.of(config), load_model(config.diffusion)
    videos = []
    for number in range(len(config.performers)):
        for drive, counts in frames.items():
            known, name = (KNOWN, "main") if drive == "self" else (0, drive)
            made = render_performer(HELD_OUT_SEED + 60 + number, "dance_a" if drive == "self" else "dance_b", known + counts[number], 15.0, size_px)
            embedding = model.embed_image(made.frames[0])
            write_clip(layout.shard(_name(number), name), Clip(_name(number), name, 15.0, known, made.pose, made.frames, None, embedding, made.mask))
            videos.append(VideoConfig(performer=_name(number), drive=drive))
        commit_folder(layout.finetune(_name(number)), lambda folder: move_and_save(model, folder), {"settings": "a little off the base"})
    return videos


@torch.no_grad()
def move_and_save(model: PoseVideoModel, folder: Path) -> None:
    """Moves what finetuning trains a little further, and writes it as finetuning does."""
    for part, name in zip((trainable_denoiser(model.denoiser, "temporal"), trainable_decoder(model)), FINETUNED, strict=True):
        for parameter in part.parameters.values():
            parameter.add_(0.001)
        save_delta(folder / name, part.module, list(part.parameters))


def share(inputs: Config, config: Config) -> None:
    """The same shards and weights below another run, without a copy."""
    source, target = RunLayout.of(inputs).root, RunLayout.of(config).root
    for name in ("shards", "finetune"):
        shutil.copytree(source / name, target / name, copy_function=os.link)


def digest(config: Config, video: VideoConfig) -> str:
    """Of a finished video's frames. Raises FileNotFoundError where it is not finished."""
    store = VideoStore.of(config, RunLayout.of(config), video)
    if not store.has_result():
        raise FileNotFoundError(f"{store.folder} holds no result")
    with np.load(store.folder / "result" / "frames.npz") as frames:
        return hashlib.sha256(b"".join(frames[name].tobytes() for name in sorted(frames))).hexdigest()


def _name(number: int) -> str:
    return f"performer-{number}"
