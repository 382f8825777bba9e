"""The video UNets that a preset may name, from published checkpoints or from a folder that dpscale saved."""

from __future__ import annotations

import inspect

from diffusers import MotionAdapter, UNet2DConditionModel, UNet3DConditionModel, UNetMotionModel

from dpscale.config.schema import DiffusionConfig
from dpscale.data.types import InputError
from dpscale.diffusion.denoiser import VideoUNet
from dpscale.diffusion.load import load_part, reason, wrong_tensors
from dpscale.diffusion.parts import Place, part_place

_RENAMED = {"attention_head_dim"}
"""UNet2DConditionModel's number of attention heads, under a name of its own in UNetMotionModel."""


def load_unet(settings: DiffusionConfig, weights: str | None) -> VideoUNet:
    """The preset's UNet, its input not yet widened. Raises InputError."""
    place = part_place(settings, weights, "unet")
    if settings.preset != "sd15":
        return load_part(UNet3DConditionModel, place)
    unet = _load_motion_unet(settings, weights, place)
    longest = unet.config.motion_max_seq_length
    if settings.window > longest:
        raise InputError(f"diffusion.window = {settings.window}: the motion modules of {place} take at most {longest} frames")
    return unet


def _load_motion_unet(settings: DiffusionConfig, weights: str | None, place: Place) -> UNetMotionModel:
    kind = _class_name(place)
    if kind == "UNetMotionModel":
        if settings.parts.motion_adapter is not None:
            raise InputError(f"{place} has motion modules of its own: leave out diffusion.parts.motion_adapter")
        return load_part(UNetMotionModel, place)
    if kind != "UNet2DConditionModel":
        raise InputError(f"{place} is a {kind}; preset sd15 takes a UNet2DConditionModel with a motion_adapter, or a UNetMotionModel")
    adapter_place = part_place(settings, weights, "motion_adapter")
    unet, adapter = load_part(UNet2DConditionModel, place), load_part(MotionAdapter, adapter_place)
    try:
        return motion_unet(unet, adapter)
    except ValueError as error:
        raise InputError(f"{adapter_place} does not fit {place}: {reason(error)}") from error


def _class_name(place: Place) -> str:
    try:
        return str(UNet2DConditionModel.load_config(place.repository, subfolder=place.subfolder or None).get("_class_name"))
    except (OSError, ValueError) as error:
        raise InputError(f"{place} is not a UNet2DConditionModel or UNetMotionModel: {reason(error)}{place.remedy}") from error


def motion_unet(unet: UNet2DConditionModel, adapter: MotionAdapter) -> UNetMotionModel:
    """UNetMotionModel.from_unet2d, with every tensor of both parts taken over. Raises ValueError on any that has no place in it, and
    on settings that it would leave out."""
    _refuse_lost_settings(unet, adapter)
    model = UNetMotionModel.from_unet2d(unet, adapter, load_weights=False)
    given, own = unet.state_dict() | adapter.state_dict(), model.state_dict()
    missing, unexpected = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    if missing or unexpected:
        raise ValueError(f"together they {wrong_tensors('UNetMotionModel', missing, unexpected).replace('is', 'are', 1)}")
    wrong = [name for name, tensor in given.items() if tensor.shape != own[name].shape]
    if wrong:
        raise ValueError(f"{wrong[0]} has shape {tuple(given[wrong[0]].shape)}, and {tuple(own[wrong[0]].shape)} is needed")
    model.load_state_dict(given)
    return model


def _refuse_lost_settings(unet: UNet2DConditionModel, adapter: MotionAdapter) -> None:
    known = inspect.signature(UNetMotionModel.__init__).parameters.keys() | _RENAMED
    defaults = {name: p.default for name, p in inspect.signature(UNet2DConditionModel.__init__).parameters.items() if name not in known}
    lost = [name for name, default in defaults.items() if name != "self" and unet.config.get(name, default) != default]
    if lost:
        raise ValueError(f"UNetMotionModel has no {lost[0]} = {unet.config[lost[0]]!r}, as this unet's config asks")
    expected = {"motion_norm_num_groups": unet.config.norm_num_groups, "motion_mid_block_layers_per_block": 1, "conv_in_channels": None}
    for name, value in expected.items():
        if adapter.config.get(name) != value:
            raise ValueError(f"{name} = {adapter.config.get(name)!r} of the motion adapter must be {value!r}")
