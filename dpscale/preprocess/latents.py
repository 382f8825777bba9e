"""Features that frozen encoders give once per frame: they stay valid for ever (METHOD 3)."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from dpscale.config.schema import DiffusionConfig
from dpscale.diffusion.weights import PoseVideoModel, to_unit

_BATCH_PX = 2**20
"""Pixels encoded at once."""


@torch.no_grad()
def encode_frames(model: PoseVideoModel, frames: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N C h w"]:
    """E_enc(I_n), scaled as the denoiser takes them, float16. One frame's latents do not depend on the other frames."""
    batch = max(1, _BATCH_PX // (frames.shape[1] * frames.shape[2]))
    device = next(model.autoencoder.parameters()).device
    parts = [model.autoencoder.encode(to_unit(frames[i : i + batch]).to(device)) for i in range(0, len(frames), batch)]
    return torch.cat(parts).cpu().numpy().astype(np.float16)


def encoder_digest(settings: DiffusionConfig) -> str:
    """Of the encoders' weight files: latents made with others are not the same. For a hub id, the id itself."""
    if settings.weights is not None and not Path(settings.weights).is_dir():
        return settings.weights
    digest = hashlib.sha256()
    with resources.as_file(resources.files("dpscale.diffusion") / settings.preset) as embedded:
        folder = embedded if settings.weights is None else Path(settings.weights)
        for path in sorted(p for part in ("vae", "image_encoder") for p in (folder / part).glob("*.safetensors")):
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
