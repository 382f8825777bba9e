"""Autoencoders E: pictures in -1..1 <-> scaled latents. The encoder is always frozen (METHOD 3), so latents stay valid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


class Autoencoder(Protocol):
    """What the rest of dpscale needs of an autoencoder."""

    latent_channels: int
    downscale: int

    def encode(self, frames: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]: ...
    def decode(self, latents: Float[Tensor, "N C h w"]) -> Float[Tensor, "N 3 H W"]: ...
    def decoder_parameters(self) -> dict[str, nn.Parameter]: ...


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """Encoder: a fixed projection of patches on their principal components. Decoder: its inverse plus a residual network.

    The last layer of the residual network starts at zero, so an untrained decoder is the best linear one. Latents are
    components divided by std**0.5 and by one common factor: their variance falls with the component's, as detail matters less."""

    @register_to_config
    def __init__(self, latent_channels: int = 16, downscale: int = 8, width: int = 64, num_blocks: int = 4) -> None:
        super().__init__()
        self.latent_channels, self.downscale = latent_channels, downscale
        self.register_buffer("mean", torch.zeros(3 * downscale**2))
        self.register_buffer("components", torch.zeros(latent_channels, 3 * downscale**2))
        self.register_buffer("scale", torch.ones(latent_channels))
        up = downscale // 4
        self.conv_in = nn.Sequential(nn.Conv2d(latent_channels, width * up * up, 3, padding=1), nn.PixelShuffle(up))
        self.blocks = nn.ModuleList(_ResidualBlock(width) for _ in range(num_blocks))
        self.conv_out = nn.Conv2d(width, 48, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    @torch.no_grad()
    def fit_components(self, frames: Float[Tensor, "N 3 H W"]) -> None:
        """Sets the encoder from sample pictures: principal components of their patches."""
        patches = F.unfold(frames, self.downscale, stride=self.downscale).transpose(1, 2).flatten(0, 1).double()
        mean = patches.mean(0)
        variance, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
        std = variance.flip(0)[: self.latent_channels].clamp(min=1e-8).sqrt()
        scale = std.sqrt()
        scale = scale * (std / scale).square().mean().sqrt()
        self.mean.copy_(mean)
        self.components.copy_(vectors.flip(1)[:, : self.latent_channels].T)
        self.scale.copy_(scale)

    def encode(self, frames: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        patches = F.unfold(frames, self.downscale, stride=self.downscale) - self.mean[:, None]
        coefficients = self.components @ patches / self.scale[:, None]
        return coefficients.unflatten(2, (frames.shape[2] // self.downscale, frames.shape[3] // self.downscale))

    def decode(self, latents: Float[Tensor, "N C h w"]) -> Float[Tensor, "N 3 H W"]:
        patches = self.components.T @ (latents.flatten(2) * self.scale[:, None]) + self.mean[:, None]
        size = (latents.shape[2] * self.downscale, latents.shape[3] * self.downscale)
        h = self.conv_in(latents)
        for block in self.blocks:
            h = block(h)
        return F.fold(patches, size, self.downscale, stride=self.downscale) + F.pixel_shuffle(self.conv_out(h), 4)

    def decoder_parameters(self) -> dict[str, nn.Parameter]:
        """What decoder finetuning may move, by name: the residual network (the projection is shared with the encoder)."""
        return dict(self.named_parameters())


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class KLAutoencoder(nn.Module):
    """diffusers' AutoencoderKL behind the same interface: the mean of the posterior, times its scaling factor."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae
        self.latent_channels, self.downscale = vae.config.latent_channels, 2 ** (len(vae.config.block_out_channels) - 1)

    def encode(self, frames: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        return self.vae.encode(frames).latent_dist.mode() * self.vae.config.scaling_factor

    def decode(self, latents: Float[Tensor, "N C h w"]) -> Float[Tensor, "N 3 H W"]:
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample

    def decoder_parameters(self) -> dict[str, nn.Parameter]:
        """Decoder and the convolution before it; the encoder's half stays frozen."""
        return {name: p for name, p in self.named_parameters() if name.startswith(("vae.decoder.", "vae.post_quant_conv."))}
