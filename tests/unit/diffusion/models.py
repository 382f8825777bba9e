"""Small models and conditions for tests."""

from __future__ import annotations

import torch

from dpscale.diffusion.conditions import POSE_CHANNELS, Conditions
from dpscale.diffusion.weights import PoseVideoModel, tiny_model

SIZE = 32
LATENT = SIZE // 8
CHANNELS = 24
WIDTHS = (16, 16)


def small_model(seed: int = 0) -> PoseVideoModel:
    """With a random last layer: an untrained `tiny` has a silent one."""
    model = tiny_model(seed, SIZE, WIDTHS, pose_channels=8, embedding=16)
    torch.nn.init.normal_(model.denoiser.unet.conv_out.weight, std=0.05)
    return model


def random_conditions(batch: int, frames: int, seed: int = 0) -> Conditions:
    g = torch.Generator().manual_seed(seed)
    maps = {kind: torch.rand(batch, frames, c, SIZE // 2, SIZE // 2, generator=g) for kind, c in POSE_CHANNELS.items()}
    return Conditions(maps, torch.randn(batch, 1, 16, generator=g), torch.randn(batch, 2 * CHANNELS, frames, LATENT, LATENT, generator=g))
