"""A model of the settings' architecture without its weights: from config.json files, or from the published configs where there are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, MotionAdapter, UNet2DConditionModel, UNet3DConditionModel, UNetMotionModel
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from dpscale.config.schema import DiffusionConfig
from dpscale.data.types import InputError
from dpscale.diffusion.autoencoder import KLAutoencoder, PatchAutoencoder
from dpscale.diffusion.backbones import motion_unet
from dpscale.diffusion.conditions import POSE_CHANNELS
from dpscale.diffusion.denoiser import PoseDenoiser, VideoUNet, widen_input
from dpscale.diffusion.encoders import weights_place
from dpscale.diffusion.load import reason
from dpscale.diffusion.parts import Place, part_place
from dpscale.diffusion.pose_encoder import PoseEncoder
from dpscale.diffusion.published import PUBLISHED

_REFUSED = (ValueError, TypeError, KeyError, OSError)
"""What the model classes raise on a config that they cannot build."""


@dataclass(frozen=True)
class UntrainedModel:
    denoiser: PoseDenoiser
    autoencoder: PatchAutoencoder | KLAutoencoder
    image_encoder: CLIPVisionModelWithProjection
    noise_schedule: DDIMScheduler
    assumed: tuple[str, ...]
    """Parts whose config is not on this machine: built as published."""


def untrained_model(settings: DiffusionConfig) -> UntrainedModel:
    """Built on the current default device: with none of its own weights, so on `meta` it takes no memory.

    Raises InputError on a folder without the part's config, and on parts that do not fit each other."""
    with torch.device("cpu"):
        schedule = DDIMScheduler()
    with weights_place(settings) as weights:
        configs = _Configs(settings, weights, [])
        unet, autoencoder, image_encoder = _unet(configs), _autoencoder(configs), _image_encoder(configs)
        pose_encoder = _pose_encoder(configs)
    if pose_encoder is None:
        pose_encoder = PoseEncoder({kind: POSE_CHANNELS[kind] for kind in settings.pose_kinds}, latent_size=settings.latent_size)
        widen_input(unet, pose_encoder.config.out_channels)
    try:
        denoiser = PoseDenoiser(unet, pose_encoder, schedule)
    except ValueError as error:
        raise InputError(f"diffusion: {error}") from error
    return UntrainedModel(denoiser.eval(), autoencoder.eval(), image_encoder.eval(), schedule, tuple(configs.assumed))


@dataclass(frozen=True)
class _Configs:
    settings: DiffusionConfig
    weights: str | None
    assumed: list[str]

    def of(self, part: str, load: Callable[[Place], dict[str, Any]]) -> dict[str, Any]:
        """From the part's folder where it is on this machine, else as published."""
        if self.weights is None and getattr(self.settings.parts, part, None) is None:
            return self._published(part)
        place = part_place(self.settings, self.weights, part)
        if not place.is_local and not _is_folder(place):
            return self._published(part)
        try:
            return load(place)
        except _REFUSED as error:
            raise InputError(f"{place} has no config.json that says how it is built: {reason(error)}{place.remedy}") from error

    def _published(self, part: str) -> dict[str, Any]:
        self.assumed.append(part)
        return PUBLISHED[self.settings.preset][part]


def _is_folder(place: Place) -> bool:
    """Whether the place is meant as a folder of this machine, there or not, and not as a hub id."""
    return Path(place.repository).is_dir() or place.repository.startswith(("/", ".", "~"))


def _build(kind: type, part: str, config: dict[str, Any]) -> Any:
    try:
        return kind.from_config(config)
    except _REFUSED as error:
        raise InputError(f"diffusion: part {part!r} cannot be built as a {kind.__name__}: {reason(error)}") from error


def _unet(configs: _Configs) -> VideoUNet:
    config = configs.of("unet", _diffusers_config)
    if configs.settings.preset != "sd15":
        return _build(UNet3DConditionModel, "unet", config)
    if config.get("_class_name") == "UNetMotionModel":
        return _build(UNetMotionModel, "unet", config)
    adapter = _build(MotionAdapter, "motion_adapter", configs.of("motion_adapter", _diffusers_config))
    try:
        return motion_unet(_build(UNet2DConditionModel, "unet", config), adapter)
    except ValueError as error:
        raise InputError(f"diffusion: the motion_adapter does not fit the unet: {reason(error)}") from error


def _autoencoder(configs: _Configs) -> PatchAutoencoder | KLAutoencoder:
    config = configs.of("vae", _diffusers_config)
    return _build(PatchAutoencoder, "vae", config) if configs.settings.preset == "tiny" else KLAutoencoder(_build(AutoencoderKL, "vae", config))


def _image_encoder(configs: _Configs) -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**configs.of("image_encoder", _vision_config)))


def _pose_encoder(configs: _Configs) -> PoseEncoder | None:
    if configs.weights is None or not part_place(configs.settings, configs.weights, "pose_encoder").is_local:
        return None
    return _build(PoseEncoder, "pose_encoder", configs.of("pose_encoder", _diffusers_config))


def _diffusers_config(place: Place) -> dict[str, Any]:
    return dict(UNet2DConditionModel.load_config(place.repository, subfolder=place.subfolder or None))


def _vision_config(place: Place) -> dict[str, Any]:
    """Of a vision model alone, or of the vision half of a whole CLIPModel, which projects to the whole model's size."""
    config, _ = CLIPVisionConfig.get_config_dict(place.repository, subfolder=place.subfolder)
    if config.get("model_type") != "clip":
        return config
    return dict(config.get("vision_config") or {}) | {"projection_dim": config.get("projection_dim", 512)}
