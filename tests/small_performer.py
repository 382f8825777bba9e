"""The smallest model and clip that go through finetuning: 32 px, random pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dpscale.config.schema import AutoencoderTrainConfig, Config, DiffusionConfig, FinetuneConfig, RunConfig
from dpscale.data.layout import RunLayout
from dpscale.data.types import BodyMotion, BodyShape, Clip, Pose
from dpscale.diffusion.encoders import to_unit
from dpscale.diffusion.weights import PoseVideoModel, tiny_model

SIZE, EMBEDDING = 32, 16


def small_model(seed: int = 0) -> PoseVideoModel:
    """An untrained model that is not silent, with sensible components: its latents have about unit variance."""
    model = tiny_model(seed, size=SIZE, widths=(16, 16), pose_channels=8, embedding=EMBEDDING)
    torch.nn.init.normal_(model.denoiser.unet.conv_out.weight, std=0.05, generator=torch.Generator().manual_seed(seed))
    model.autoencoder.fit_components(to_unit(np.random.default_rng(seed).integers(0, 256, (64, SIZE, SIZE, 3), dtype=np.uint8)))
    return model


def small_clip(performer: str, model: PoseVideoModel, num_frames: int = 15, num_train: int = 12) -> Clip:
    """A clip of random pictures and poses that follow from the performer's name alone."""
    rng = np.random.default_rng(list(performer.encode()))
    frames = rng.integers(0, 256, (num_frames, SIZE, SIZE, 3), dtype=np.uint8)
    keypoints = np.concatenate([rng.uniform(0, SIZE, (num_frames, 18, 2)), np.ones((num_frames, 18, 1))], -1).astype(np.float32)
    iuv = rng.integers(0, 25, (num_frames, SIZE, SIZE, 3), dtype=np.uint8)
    rotations = np.broadcast_to(np.eye(3, dtype=np.float32), (num_frames, 4, 3, 3)).copy()
    motion = BodyMotion(rotations, np.zeros((num_frames, 3), np.float32), 40.0, (0.0, 0.0))
    flow, valid = np.zeros((num_frames, SIZE, SIZE, 2), np.float32), np.zeros((num_frames, SIZE, SIZE), bool)
    pose = Pose(keypoints, iuv, flow, valid, BodyShape(np.zeros(8, np.float32), np.zeros(9, np.float32)), motion)
    latents = model.autoencoder.encode(to_unit(frames)).numpy()
    return Clip(performer, "main", 30.0, num_train, pose, frames, latents, rng.standard_normal(EMBEDDING).astype(np.float32))


def small_config(root: Path, weights: Path, **finetune: object) -> Config:
    """A run below `root` on the base in the folder `weights`: six denoiser steps, four decoder steps."""
    settings = {"clip_frames": 4, "epochs": 2.0, "lr": 1e-3, "checkpoint_every": 2, "decoder": AutoencoderTrainConfig(steps=4, lr=1e-3, batch_size=2)}
    return Config(
        run=RunConfig(name="small", root=root),
        diffusion=DiffusionConfig(preset="tiny", weights=str(weights)),
        finetune=FinetuneConfig(**settings | finetune),
    )


def small_run(root: Path, performers: tuple[str, ...], **finetune: object) -> tuple[Config, RunLayout, PoseVideoModel]:
    """A run folder in which the base is saved and every performer is preprocessed."""
    from dpscale.data.shards import write_clip

    model = small_model()
    model.save(root / "base")
    config = small_config(root, root / "base", **finetune)
    layout = RunLayout.of(config)
    for name in performers:
        write_clip(layout.shard(name, "main"), small_clip(name, model))
    return config, layout, model
