"""Whole models in diffusers' folder format. safetensors only, never pickle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet3DConditionModel
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from dpscale.config.schema import DiffusionConfig
from dpscale.data.array_files import give_back
from dpscale.data.types import InputError
from dpscale.diffusion.autoencoder import KLAutoencoder, PatchAutoencoder
from dpscale.diffusion.backbones import load_unet
from dpscale.diffusion.conditions import POSE_CHANNELS
from dpscale.diffusion.denoiser import PoseDenoiser, VideoUNet, silence_temporal_layers, widen_input
from dpscale.diffusion.detail import decode_with_detail
from dpscale.diffusion.encoders import FRAMES_AT_ONCE, Encoders, load_encoders_from, own_memory, to_unit, weights_place
from dpscale.diffusion.load import load_noise_schedule, load_part
from dpscale.diffusion.parts import part_place
from dpscale.diffusion.pose_encoder import PoseEncoder
from dpscale.diffusion.reference import ReferencePictures


@dataclass(frozen=True)
class References:
    """What is known of N frames, and its latents."""

    pictures: ReferencePictures
    warped: Float[Tensor, "C N h w"]
    """E_enc of the warped frames."""
    background: Float[Tensor, "C h w"]

    @property
    def pieces(self) -> tuple[Float[Tensor, "C N h w"], Float[Tensor, "C N h w"]]:
        """As the denoiser takes them, channels of the warped frames before those of the background; the background is one picture, expanded."""
        return self.warped, self.background[:, None].expand_as(self.warped)

    @property
    def latents(self) -> Float[Tensor, "1 R N h w"]:
        """Both in one tensor."""
        return torch.cat(self.pieces)[None]


@dataclass(frozen=True)
class PoseVideoModel(Encoders):
    """The whole diffusion model."""

    denoiser: PoseDenoiser
    noise_schedule: DDIMScheduler

    @torch.no_grad()
    def encode_references(self, pictures: ReferencePictures) -> References:
        warped: Tensor | None = None
        begin, background = 0, self.encode(pictures.background[None])[0]
        for part in self.encoded(pictures.warped):
            if warped is None:
                warped = part.new_empty(part.shape[1], len(pictures.warped), *part.shape[2:])
            warped[:, begin : begin + len(part)] = part.transpose(0, 1)
            begin += len(part)
        assert warped is not None, "references of no frame"
        return References(pictures, warped, background)

    @torch.no_grad()
    def decode(
        self, latents: Float[Tensor, "N C h w"], references: References | None = None, out: UInt8[np.ndarray, "N H W 3"] | None = None
    ) -> UInt8[np.ndarray, "N H W 3"]:
        """E_dec; with references, the detail that they show is given back (diffusion.detail). Written to `out` where it is given, a few frames
        at a time: it may be mapped from a file."""
        downscale = self.autoencoder.downscale
        made = np.empty((len(latents), *(downscale * side for side in latents.shape[2:]), 3), np.uint8) if out is None else out
        for frames in torch.arange(len(latents)).split(FRAMES_AT_ONCE):
            made[frames.numpy()] = to_uint8(self._decode(latents[frames], references, frames).cpu())
            give_back(made)
        return made

    def _decode(self, latents: Float[Tensor, "F C h w"], references: References | None, frames: Int[Tensor, " F"]) -> Float[Tensor, "F 3 H W"]:
        if references is None:
            return self.autoencoder.decode(latents)
        warped = to_unit(references.pictures.warped[frames.numpy()]).to(latents)
        give_back(references.pictures.warped)
        background = to_unit(references.pictures.background[None]).to(latents).expand_as(warped)
        known = torch.stack([piece[:, frames].transpose(0, 1) for piece in references.pieces])
        return decode_with_detail(self.autoencoder, latents, known, torch.stack([warped, background]))

    def modules(self) -> dict[str, nn.Module]:
        """Parts by name of their folder."""
        autoencoder = self.autoencoder.vae if isinstance(self.autoencoder, KLAutoencoder) else self.autoencoder
        return {"unet": self.denoiser.unet, "pose_encoder": self.denoiser.pose_encoder, "vae": autoencoder, "image_encoder": self.image_encoder}

    def save(self, folder: Path) -> None:
        """Writes the model as a diffusers-format folder, in the tensors' own dtype."""
        for name, module in self.modules().items():
            module.save_pretrained(folder / name)
        self.noise_schedule.save_pretrained(folder / "scheduler")


def to_uint8(frames: Float[Tensor, "N 3 H W"]) -> UInt8[np.ndarray, "N H W 3"]:
    """-1..1 -> uint8 pictures, rounded."""
    return ((frames.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def load_model(settings: DiffusionConfig) -> PoseVideoModel:
    """Loads the model that the settings name: the embedded `tiny`, or parts in diffusers format from folders or hub ids.

    Raises InputError that names what is missing or does not fit."""
    with weights_place(settings) as weights:
        return load_folder(weights, settings)


def load_folder(weights: str | None, settings: DiffusionConfig) -> PoseVideoModel:
    """Loads a diffusers-format folder or hub id, with the parts that the settings name one by one in place of its own.

    Published checkpoints without pose encoder get a fresh one, always the same, and a widened input."""
    unet = load_unet(settings, weights)
    encoders = load_encoders_from(weights, settings)
    schedule = load_noise_schedule(part_place(settings, weights, "scheduler"))
    _check_fit(unet, encoders)
    if weights is not None and part_place(settings, weights, "pose_encoder").is_local:
        pose_encoder = load_part(PoseEncoder, part_place(settings, weights, "pose_encoder"))
    else:
        pose_encoder = _fresh_pose_encoder(settings)
        widen_input(unet, pose_encoder.config.out_channels)
    try:
        denoiser = PoseDenoiser(unet, pose_encoder, schedule)
    except ValueError as error:
        raise InputError(f"{part_place(settings, weights, 'unet')}: {error}") from error
    return PoseVideoModel(encoders.autoencoder, encoders.image_encoder, own_memory(denoiser.float().eval()), schedule)


def _fresh_pose_encoder(settings: DiffusionConfig) -> PoseEncoder:
    """Untrained. Part of the base model, so every process and every run starts from the same one, whatever the run's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PoseEncoder({kind: POSE_CHANNELS[kind] for kind in settings.pose_kinds}, latent_size=settings.latent_size)


def _check_fit(unet: VideoUNet, encoders: Encoders) -> None:
    """Parts from different places must be of one family."""
    latent, embedding = encoders.autoencoder.latent_channels, encoders.image_encoder.config.projection_dim
    if latent != unet.config.out_channels:
        raise InputError(f"the vae makes latents of {latent} channels, the unet predicts {unet.config.out_channels}: name parts of one family")
    if embedding != unet.config.cross_attention_dim:
        raise InputError(
            f"the image_encoder makes embeddings of {embedding} numbers, the unet takes {unet.config.cross_attention_dim} "
            "(sd21: OpenCLIP ViT-H/14, sd15: CLIP ViT-L/14): name another in diffusion.parts.image_encoder"
        )


def tiny_model(seed: int, size: int = 128, widths: tuple[int, ...] = (64, 96, 128), pose_channels: int = 16, embedding: int = 128) -> PoseVideoModel:
    """An untrained model of the `tiny` family for `size` px pictures, from a seed: it shows the warped references as they are."""
    torch.manual_seed(seed)
    autoencoder = PatchAutoencoder(latent_channels=24)
    latent = size // autoencoder.downscale
    pose_encoder = PoseEncoder(dict(POSE_CHANNELS), pose_channels, 32, latent, use_reference=True)
    unet = UNet3DConditionModel(
        sample_size=latent, in_channels=3 * autoencoder.latent_channels + pose_channels, out_channels=autoencoder.latent_channels,
        down_block_types=("CrossAttnDownBlock3D",) * (len(widths) - 1) + ("DownBlock3D",),
        up_block_types=("UpBlock3D",) + ("CrossAttnUpBlock3D",) * (len(widths) - 1),
        block_out_channels=widths, layers_per_block=1, norm_num_groups=8, cross_attention_dim=embedding, attention_head_dim=8,
    )  # fmt: skip
    silence_temporal_layers(unet)
    nn.init.zeros_(unet.conv_out.weight)
    nn.init.zeros_(unet.conv_out.bias)
    image_encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=96,
            intermediate_size=192,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=size,
            patch_size=16,
            projection_dim=embedding,
        )
    )
    schedule = DDIMScheduler(
        beta_start=0.00085, beta_end=0.0120, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=True,
        prediction_type="sample", timestep_spacing="trailing", rescale_betas_zero_snr=True,
    )  # fmt: skip
    return PoseVideoModel(autoencoder.eval(), image_encoder.eval(), PoseDenoiser(unet, pose_encoder, schedule).eval(), schedule)
