"""The frozen parts that look at pictures: the autoencoder and the image encoder. Preprocessing loads these alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from dpscale.config.schema import DiffusionConfig
from dpscale.data.array_files import give_back
from dpscale.data.types import InputError
from dpscale.diffusion.autoencoder import KLAutoencoder, PatchAutoencoder
from dpscale.diffusion.load import load_image_encoder, load_part
from dpscale.diffusion.parts import part_place

FRAMES_AT_ONCE = 8
"""Frames encoded or decoded together. Fixed, because sums may depend on it in their last bit."""
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Encoders:
    """What turns pictures into latents and embeddings."""

    autoencoder: PatchAutoencoder | KLAutoencoder
    image_encoder: CLIPVisionModelWithProjection

    @torch.no_grad()
    def embed_image(self, frame: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, " D"]:
        """CLIP image embedding of a picture."""
        device = next(self.image_encoder.parameters()).device
        return self.embed_images(to_unit(frame[None]).to(device))[0].cpu().numpy()

    def embed_images(self, frames: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        """CLIP image embeddings of pictures in -1..1."""
        size = self.image_encoder.config.image_size
        pixels = F.interpolate((frames + 1) / 2, size=(size, size), mode="bicubic", antialias=True, align_corners=False)
        mean, std = (torch.tensor(v)[:, None, None].to(pixels) for v in (_CLIP_MEAN, _CLIP_STD))
        return self.image_encoder((pixels - mean) / std).image_embeds

    @torch.no_grad()
    def encode(self, frames: UInt8[np.ndarray, "N H W 3"]) -> Float[Tensor, "N C h w"]:
        """E_enc, on the model's device."""
        return torch.cat(list(self.encoded(frames)))

    @torch.no_grad()
    def encoded(self, frames: UInt8[np.ndarray, "N H W 3"]) -> Iterator[Float[Tensor, "F C h w"]]:
        """E_enc in pieces of a few frames, for videos that are not to be in memory as a whole."""
        device = next(self.autoencoder.parameters()).device
        for begin in range(0, len(frames), FRAMES_AT_ONCE):
            yield self.autoencoder.encode(to_unit(frames[begin : begin + FRAMES_AT_ONCE]).to(device))
            give_back(frames)


def to_unit(frames: UInt8[np.ndarray, "N H W 3"]) -> Float[Tensor, "N 3 H W"]:
    """uint8 pictures -> -1..1."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1


@contextmanager
def weights_place(settings: DiffusionConfig) -> Iterator[str | None]:
    """Folder or hub id of the parts that the settings do not name one by one. Raises InputError where `tiny` is not installed."""
    if settings.weights is not None or settings.preset != "tiny":
        yield settings.weights
        return
    with resources.as_file(resources.files("dpscale.diffusion") / "tiny") as folder:
        if not (folder / "unet").is_dir():
            raise InputError("the embedded model is not installed (dpscale/diffusion/tiny): run `dpscale pretrain` or reinstall the package")
        yield str(folder)


def load_encoders(settings: DiffusionConfig) -> Encoders:
    """The encoders of the model that the settings name, without its denoiser. Raises InputError."""
    with weights_place(settings) as weights:
        return load_encoders_from(weights, settings)


def load_encoders_from(weights: str | None, settings: DiffusionConfig) -> Encoders:
    """From a diffusers-format folder or hub id, and the parts that the settings name one by one. Raises InputError."""
    image_encoder = load_image_encoder(part_place(settings, weights, "image_encoder"))
    vae = part_place(settings, weights, "vae")
    if settings.preset == "tiny":
        autoencoder = load_part(PatchAutoencoder, vae)
    else:
        from diffusers import AutoencoderKL  # pulls in most of diffusers' models, which `tiny` has no use for

        autoencoder = KLAutoencoder(load_part(AutoencoderKL, vae))
    return Encoders(own_memory(autoencoder.float().eval()), own_memory(image_encoder.float().eval()))


def own_memory(module: nn.Module) -> nn.Module:
    """Copies a module's tensors out of the mapped file. There they lie at any offset, and sums over unaligned memory differ in their
    last bits; and the file could not be replaced while a process uses it."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone()
    return module
