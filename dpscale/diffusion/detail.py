"""Detail that the autoencoder loses, given back from references that agree (ours, for `tiny`).

A small autoencoder blurs. But what it loses of a reference is known, I_k - E_dec(E_enc(I_k)), and where a latent agrees with that of a
reference, the same is missing there. Published relatives: decoders that see the unmasked pixels (asymmetric VQGAN, Zhu et al. 2023)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dpscale.diffusion.autoencoder import KLAutoencoder, PatchAutoencoder

_DISTANCE = 0.3
"""Mean squared distance of latents (whose variance is about 1) at which a reference counts as much as none does."""
_SHARPNESS = 10.0
"""How fast a reference gives way with distance."""


def decode_with_detail(
    autoencoder: PatchAutoencoder | KLAutoencoder,
    latents: Float[Tensor, "N C h w"],
    reference_latents: Float[Tensor, "K N C h w"],
    pictures: Float[Tensor, "K N 3 H W"],
) -> Float[Tensor, "N 3 H W"]:
    """E_dec(z) + sum_k w_k (I_k - E_dec(z_k)) for K references of each frame.

    w_k, a softmax over the references and none at all, falls with the distance of z from z_k, cell by cell."""
    distance = (latents - reference_latents).square().mean(2)  # K N h w
    nothing = torch.full_like(distance[:1], _DISTANCE)
    weight = torch.cat([distance, nothing]).mul(-_SHARPNESS).softmax(0)[:-1]
    weight = F.interpolate(weight, size=pictures.shape[-2:], mode="bilinear", align_corners=False)
    result = autoencoder.decode(latents)
    for w, z, picture in zip(weight, reference_latents, pictures, strict=True):
        result = result + w[:, None] * (picture - _decoded(autoencoder, z))
    return result


def _decoded(autoencoder: PatchAutoencoder | KLAutoencoder, latents: Float[Tensor, "N C h w"]) -> Float[Tensor, "N 3 H W"]:
    """E_dec; a still background, the same in all frames, is decoded for two: a batch of one differs from larger ones in its last bits."""
    still = len(latents) > 2 and bool((latents == latents[:1]).all())
    return autoencoder.decode(latents[:2])[:1].expand(len(latents), -1, -1, -1) if still else autoencoder.decode(latents)
