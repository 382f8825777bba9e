"""Weights: whole models in diffusers' folder format, and deltas that hold only what changed. safetensors only, never pickle."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet3DConditionModel
from jaxtyping import Float, Int, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from dpscale.config.schema import DiffusionConfig
from dpscale.data.checkpoint import write_atomically
from dpscale.data.types import InputError
from dpscale.diffusion.autoencoder import KLAutoencoder, PatchAutoencoder
from dpscale.diffusion.conditions import POSE_CHANNELS
from dpscale.diffusion.denoiser import PoseDenoiser, silence_temporal_layers, widen_input
from dpscale.diffusion.detail import decode_with_detail
from dpscale.diffusion.pose_encoder import PoseEncoder
from dpscale.diffusion.reference import ReferencePictures

_FRAMES_AT_ONCE = 8
"""Frames encoded or decoded together. Fixed, because sums may depend on it in their last bit."""
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class References:
    """What is known of N frames, and its latents."""

    pictures: ReferencePictures
    latents: Float[Tensor, "1 R N h w"]
    """As the denoiser takes them: channels of the warped frames, then of the background."""


@dataclass(frozen=True)
class PoseVideoModel:
    """The whole diffusion model."""

    denoiser: PoseDenoiser
    autoencoder: PatchAutoencoder | KLAutoencoder
    image_encoder: CLIPVisionModelWithProjection
    noise_schedule: DDIMScheduler

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
        device = next(self.autoencoder.parameters()).device
        return torch.cat([self.autoencoder.encode(part.to(device)) for part in to_unit(frames).split(_FRAMES_AT_ONCE)])

    def encode_references(self, pictures: ReferencePictures) -> References:
        warped, background = self.encode(pictures.warped), self.encode(pictures.background[None])
        return References(pictures, torch.cat([warped, background.expand_as(warped)], 1).transpose(0, 1)[None])

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "N C h w"], references: References | None = None) -> UInt8[np.ndarray, "N H W 3"]:
        """E_dec; with references, the detail that they show is given back (diffusion.detail)."""
        frames = torch.arange(len(latents)).split(_FRAMES_AT_ONCE)
        return np.concatenate([to_uint8(self._decode(latents[f], references, f).cpu()) for f in frames])

    def _decode(self, latents: Float[Tensor, "F C h w"], references: References | None, frames: Int[Tensor, " F"]) -> Float[Tensor, "F 3 H W"]:
        if references is None:
            return self.autoencoder.decode(latents)
        warped = to_unit(references.pictures.warped[frames.numpy()]).to(latents)
        background = to_unit(references.pictures.background[None]).to(latents).expand_as(warped)
        known = references.latents[0][:, frames].transpose(0, 1)
        return decode_with_detail(self.autoencoder, latents, torch.stack(known.chunk(2, 1)), torch.stack([warped, background]))

    def modules(self) -> dict[str, nn.Module]:
        """Parts by name of their folder."""
        autoencoder = self.autoencoder.vae if isinstance(self.autoencoder, KLAutoencoder) else self.autoencoder
        return {"unet": self.denoiser.unet, "pose_encoder": self.denoiser.pose_encoder, "vae": autoencoder, "image_encoder": self.image_encoder}

    def save(self, folder: Path) -> None:
        """Writes the model as a diffusers-format folder, in the tensors' own dtype."""
        for name, module in self.modules().items():
            module.save_pretrained(folder / name)
        self.noise_schedule.save_pretrained(folder / "scheduler")


def to_unit(frames: UInt8[np.ndarray, "N H W 3"]) -> Float[Tensor, "N 3 H W"]:
    """uint8 pictures -> -1..1."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(frames: Float[Tensor, "N 3 H W"]) -> UInt8[np.ndarray, "N H W 3"]:
    """-1..1 -> uint8 pictures, rounded."""
    return ((frames.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def load_model(settings: DiffusionConfig) -> PoseVideoModel:
    """Loads the model that the settings name: the embedded `tiny`, or a folder or hub id in diffusers format.

    Raises InputError that names what is missing."""
    if settings.weights is None and settings.preset == "sd21":
        raise InputError(
            "diffusion.weights is not set: preset sd21 needs a folder or hub id in diffusers format (unet, vae, image_encoder, scheduler)"
        )
    if settings.weights is None:
        with resources.as_file(resources.files("dpscale.diffusion") / "tiny") as folder:
            if not (folder / "unet").is_dir():
                raise InputError("the embedded model is not installed (dpscale/diffusion/tiny): run `dpscale pretrain` or reinstall the package")
            return load_folder(str(folder), settings)
    return load_folder(settings.weights, settings)


def load_folder(weights: str, settings: DiffusionConfig) -> PoseVideoModel:
    """Loads a diffusers-format folder or hub id. Published checkpoints without pose encoder get a fresh one and a widened input."""
    unet = _part(UNet3DConditionModel, weights, "unet")
    image_encoder = _part(CLIPVisionModelWithProjection, weights, "image_encoder")
    autoencoder = _part(PatchAutoencoder, weights, "vae") if settings.preset == "tiny" else KLAutoencoder(_part(AutoencoderKL, weights, "vae"))
    schedule = DDIMScheduler.from_pretrained(weights, subfolder="scheduler")
    if _has_part(weights, "pose_encoder"):
        pose_encoder = _part(PoseEncoder, weights, "pose_encoder")
    else:
        pose_encoder = PoseEncoder({kind: POSE_CHANNELS[kind] for kind in settings.pose_kinds}, latent_size=unet.config.sample_size or 64)
        widen_input(unet, pose_encoder.config.out_channels)
    try:
        denoiser = PoseDenoiser(unet, pose_encoder, schedule)
    except ValueError as error:
        raise InputError(f"diffusion.weights = {weights}: {error}") from error
    return PoseVideoModel(*(_own_memory(module.float().eval()) for module in (denoiser, autoencoder, image_encoder)), schedule)


def _own_memory(module: nn.Module) -> nn.Module:
    """Copies a module's tensors out of the mapped file. There they lie at any offset, and sums over unaligned memory differ in their
    last bits; and the file could not be replaced while a process uses it."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone()
    return module


def _part(kind: type, weights: str, subfolder: str):
    """One part by diffusers' or transformers' own loader; a wrong or partial checkpoint names its first wrong tensors."""
    try:
        part, report = kind.from_pretrained(weights, subfolder=subfolder, output_loading_info=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise InputError(f"diffusion.weights = {weights}: part {subfolder!r} is not a {kind.__name__}: {str(error).splitlines()[0]}") from error
    missing, unexpected = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    if missing or unexpected:
        raise InputError(
            f"diffusion.weights = {weights}: part {subfolder!r} is a checkpoint of another architecture than this {kind.__name__}: "
            f"missing tensors: {missing[:3] or 'none'}, unexpected: {unexpected[:3] or 'none'}"
        )
    return part


def _has_part(weights: str, subfolder: str) -> bool:
    """A hub id never has our pose encoder unless it was published with one; then download it to a folder first."""
    return (Path(weights) / subfolder / "config.json").is_file()


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
    return PoseVideoModel(PoseDenoiser(unet, pose_encoder, schedule).eval(), autoencoder.eval(), image_encoder.eval(), schedule)


def save_delta(path: Path, module: nn.Module, names: list[str]) -> None:
    """Writes the named tensors of a module, atomically: only what a performer's training changed."""
    state = module.state_dict()
    write_atomically(path, lambda p: save_file({name: state[name].detach().contiguous().cpu() for name in names}, p))


def load_delta(path: Path, module: nn.Module) -> None:
    """Loads tensors written by `save_delta` over a module's own. Raises InputError on tensors that do not fit."""
    state, own = load_file(path), module.state_dict()
    wrong = [name for name, tensor in state.items() if name not in own or own[name].shape != tensor.shape]
    if wrong:
        raise InputError(f"{path} does not fit this model: first wrong tensor {wrong[0]!r}; it was trained on another base")
    module.load_state_dict(state, strict=False)
