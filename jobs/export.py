"""`dpscale export CONFIG --performer NAME --to DIR`: one finetuned performer as a model of its own (docs/export.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dpscale.config.schema import Config
from dpscale.data.checkpoint import marker_of
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError
from dpscale.diffusion.export import export_model
from dpscale.finetune.checkpoint import base_digest, settings_hash
from dpscale.finetune.performer import is_finetuned
from jobs.run_folder import check_unchanged
from jobs.summary import commit


def run(config: Config, performer: str, to: Path) -> int:
    """Writes the folder `to`. Raises InputError where the performer is not finetuned with these settings, or `to` is not free."""
    layout = RunLayout.of(config)
    check_unchanged(config, layout)
    finetuned = _finetuned(config, layout, performer)
    export_model(config.diffusion, finetuned, to, _provenance(config, performer))
    print(
        f"{performer} -> {to}\nuse: --set diffusion.preset={config.diffusion.preset} --set diffusion.weights={to}, or docs/export.md without dpscale"
    )
    return 0


def _finetuned(config: Config, layout: RunLayout, performer: str) -> Path:
    try:
        folder, shard = layout.finetune(performer), layout.shard(performer, "main")
    except ValueError as error:
        raise InputError(f"--performer {performer}: {error}") from error
    if marker_of(folder) is None:
        raise InputError(f"{folder} is not there or unfinished: finetune performer {performer!r} first")
    if not is_finetuned(layout, performer, settings_hash(config, shard)):
        raise InputError(f"{folder} was made from other settings, base weights or footage than are there now: restore these, or finetune again")
    return folder


def _provenance(config: Config, performer: str) -> dict[str, Any]:
    diffusion = config.diffusion
    return {
        "performer": performer,
        "base": {
            "weights": diffusion.weights or f"packaged {diffusion.preset}",
            "parts": diffusion.parts.model_dump(),
            "digest": base_digest(diffusion),
        },
        "finetune": config.finetune.model_dump(mode="json"),
        "seed": config.run.seed,
        "commit": commit(),
    }
