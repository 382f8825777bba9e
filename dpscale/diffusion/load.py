"""One part of a model from its place, by diffusers' or transformers' own loaders. safetensors only, never pickle."""

from __future__ import annotations

from typing import Any

from diffusers import DDIMScheduler
from safetensors import SafetensorError
from transformers import CLIPConfig, CLIPVisionConfig, CLIPVisionModelWithProjection

from dpscale.data.types import InputError
from dpscale.diffusion.parts import Place

_FAILURES = (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError)
_TEXT_HALF = ("text_model.", "text_projection.", "logit_scale")
"""Tensors of a whole CLIPModel that its vision model has no use for."""
_PREDICTIONS = ("epsilon", "sample", "v_prediction")


def load_part(kind: type, place: Place, unused: tuple[str, ...] = (), **options: Any):
    """A model of class `kind`. Tensors that begin with one of `unused` may be left over.

    Raises InputError: a wrong or partial checkpoint names its first wrong tensors."""
    try:
        part, report = kind.from_pretrained(place.repository, subfolder=place.subfolder, output_loading_info=True, use_safetensors=True, **options)
    except _FAILURES as error:
        raise InputError(f"{place} is not a {kind.__name__}: {reason(error)}{place.remedy}") from error
    missing, unexpected = sorted(report["missing_keys"]), sorted(key for key in report["unexpected_keys"] if not key.startswith(unused))
    if missing or unexpected:
        raise InputError(f"{place} {wrong_tensors(kind.__name__, missing, unexpected)}")
    if report["mismatched_keys"]:
        name, shape, needed = min(report["mismatched_keys"])
        raise InputError(f"{place} is not the {kind.__name__} of its config: {name} has shape {tuple(shape)}, the config asks for {tuple(needed)}")
    return part


def wrong_tensors(kind: str, missing: list[str], unexpected: list[str]) -> str:
    """The first three of each, in words."""
    return (
        f"is a checkpoint of another architecture than this {kind}: missing tensors: {missing[:3] or 'none'}, unexpected: {unexpected[:3] or 'none'}"
    )


def load_image_encoder(place: Place) -> CLIPVisionModelWithProjection:
    """CLIP's vision model with projection, also out of a checkpoint of the whole CLIPModel. Raises InputError.

    transformers names tensors of a wrong shape in its log only; told to ignore them, it reports them, and load_part refuses."""
    try:
        config, _ = CLIPVisionConfig.get_config_dict(place.repository, subfolder=place.subfolder)
        whole = CLIPConfig.from_dict(config) if config.get("model_type") == "clip" else None
    except _FAILURES as error:
        raise InputError(f"{place} is not a CLIPVisionModelWithProjection: {reason(error)}{place.remedy}") from error
    if whole is None:
        return load_part(CLIPVisionModelWithProjection, place, ignore_mismatched_sizes=True)
    vision = whole.vision_config
    vision.projection_dim = whole.projection_dim  # a whole model projects to its own size, whatever its vision half's config says
    return load_part(CLIPVisionModelWithProjection, place, _TEXT_HALF, config=vision, ignore_mismatched_sizes=True)


def load_noise_schedule(place: Place) -> DDIMScheduler:
    """DDIM with the settings of the scheduler's folder as they are, whichever sampler they were written for. Raises InputError."""
    try:
        config = DDIMScheduler.load_config(place.repository, subfolder=place.subfolder or None)
        schedule = DDIMScheduler.from_config(config)
    except _FAILURES as error:
        raise InputError(f"{place} holds no scheduler_config.json that DDIM can use: {reason(error)}{place.remedy}") from error
    if "beta_schedule" not in config and "trained_betas" not in config:
        raise InputError(f"{place} is a {config.get('_class_name')} without betas: give the scheduler of a DDPM-trained model")
    if schedule.config.prediction_type not in _PREDICTIONS:
        raise InputError(f"{place}: prediction_type = {schedule.config.prediction_type!r} must be one of {', '.join(_PREDICTIONS)}")
    return schedule


def reason(error: Exception) -> str:
    """An error's message in one line."""
    return " ".join(str(error).split())[:300]
