"""Features that frozen encoders give once per frame: they stay valid for ever (METHOD 3)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8

from dpscale.diffusion.encoders import Encoders, to_unit

_BATCH_PX = 2**20
"""Pixels encoded at once."""


@torch.no_grad()
def encode_frames(encoders: Encoders, frames: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N C h w"]:
    """E_enc(I_n), scaled as the denoiser takes them, float16. One frame's latents do not depend on the other frames."""
    batch = max(1, _BATCH_PX // (frames.shape[1] * frames.shape[2]))
    device = next(encoders.autoencoder.parameters()).device
    parts = [encoders.autoencoder.encode(to_unit(frames[i : i + batch]).to(device)) for i in range(0, len(frames), batch)]
    return torch.cat(parts).cpu().numpy().astype(np.float16)
