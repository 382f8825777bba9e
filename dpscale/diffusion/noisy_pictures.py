"""Noise on the picture instead of on its latents: the ablation Noisy-Image Opt. (DiffPerformer S, Table 2)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dpscale.config.schema import DiffusionConfig
from dpscale.diffusion.encoders import FRAMES_AT_ONCE, to_unit
from dpscale.diffusion.refine import sampling_schedule
from dpscale.diffusion.weights import PoseVideoModel


@torch.no_grad()
def encode_noisy(
    model: PoseVideoModel, frames: UInt8[np.ndarray, "N H W 3"], strength: float, settings: DiffusionConfig, seed: int
) -> Iterator[Float[Tensor, "_ C h w"]]:
    """E_enc(sqrt(a) I + sqrt(1 - a) e): pictures in -1..1 with Gaussian noise e from `seed`, at the level a at which a refresh of
    `strength` starts. In pieces of a few frames; not clipped, so that the noise stays Gaussian."""
    schedule = sampling_schedule(model.noise_schedule, settings.sampling_steps, strength)
    kept = schedule.alphas_cumprod[schedule.timesteps[0]]
    generator = torch.Generator().manual_seed(seed)
    device = next(model.autoencoder.parameters()).device
    for first in range(0, len(frames), FRAMES_AT_ONCE):
        pictures = to_unit(frames[first : first + FRAMES_AT_ONCE])
        noise = torch.randn(pictures.shape, generator=generator)
        yield model.autoencoder.encode((kept.sqrt() * pictures + (1 - kept).sqrt() * noise).to(device))
