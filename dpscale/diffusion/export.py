"""One performer's model as a folder of its own: base and deltas merged, in diffusers' format."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dpscale.config.schema import DiffusionConfig
from dpscale.data.checkpoint import commit_folder, write_json
from dpscale.data.types import InputError
from dpscale.diffusion.delta import FINETUNED, load_delta
from dpscale.diffusion.weights import PoseVideoModel, load_model

CARD = "model_card.json"
_PACKAGES = ("torch", "diffusers", "transformers", "safetensors")


def export_model(settings: DiffusionConfig, finetuned: Path, to: Path, provenance: Mapping[str, Any]) -> None:
    """Commits the base that the settings name, with the deltas of the folder `finetuned` in its weights, to the folder `to`.

    Raises InputError where `to` holds something, or the deltas do not fit the base."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"{to}: is there and not an empty folder: give another --to, or remove it")
    model = load_model(settings)
    for name, module in zip(FINETUNED, (model.denoiser, model.autoencoder), strict=True):
        load_delta(finetuned / name, module)

    def write(folder: Path) -> None:
        model.save(folder)
        write_json(folder / CARD, {"provenance": {**provenance, "deltas_sha256": _digests(finetuned)}, **_card(model, settings)})

    commit_folder(to, write, {"card": CARD})


def _card(model: PoseVideoModel, settings: DiffusionConfig) -> dict[str, Any]:
    """What a program needs to know that loads the folder."""
    parts = {name: {"class": type(part).__name__, "library": type(part).__module__.split(".")[0]} for name, part in model.modules().items()}
    return {
        "preset": settings.preset,
        "parts": parts | {"scheduler": {"class": "DDIMScheduler", "library": "diffusers"}},
        "pose": {"kinds": list(settings.pose_kinds), "resolution": model.denoiser.pose_encoder.resolution},
        "sampling": settings.model_dump(mode="json", include={"sampling_steps", "guidance_scale", "window", "stride"}),
        "versions": {name: version(name) for name in _PACKAGES},
    }


def _digests(finetuned: Path) -> dict[str, str]:
    return {name: hashlib.sha256((finetuned / name).read_bytes()).hexdigest() for name in FINETUNED}
