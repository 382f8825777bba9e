"""Small models and conditions for tests."""

from __future__ import annotations

import torch

from dpscale.diffusion.conditions import POSE_CHANNELS, Conditions
from dpscale.diffusion.weights import PoseVideoModel, tiny_model

SIZE = 32
LATENT = SIZE // 8
WIDTHS = (16, 16)


def small_model(seed: int = 0) -> PoseVideoModel:
    return tiny_model(seed, SIZE, WIDTHS, pose_channels=8, embedding=16)


def random_conditions(batch: int, frames: int, seed: int = 0) -> Conditions:
    g = torch.Generator().manual_seed(seed)
    maps = {kind: torch.rand(batch, frames, c, SIZE // 2, SIZE // 2, generator=g) for kind, c in POSE_CHANNELS.items()}
    return Conditions(maps, torch.randn(batch, 1, 16, generator=g), torch.randn(batch, 16, LATENT, LATENT, generator=g))
