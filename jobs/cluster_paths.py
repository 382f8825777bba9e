"""Paths of the settings as another machine must read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dpscale.config.load import check
from dpscale.config.schema import Config


def with_absolute_paths(config: Config) -> Config:
    """A relative path counts from the working directory here, and the job's is another one. (The weights' may be a hub's name instead.)"""
    raw = _absolute(config.model_dump())
    for key in ("weights", *(f"parts.{part}" for part in raw["diffusion"]["parts"])):
        section, _, name = key.rpartition(".")
        holder = raw["diffusion"][section] if section else raw["diffusion"]
        if holder[name] and Path(holder[name]).exists():
            holder[name] = str(Path(holder[name]).absolute())
    store = raw["preprocess"]["store"]
    if store and "://" not in store:
        raw["preprocess"]["store"] = str(Path(store).expanduser().absolute())
    return check(raw)


def _absolute(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _absolute(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_absolute(item) for item in value]
    return str(value.absolute()) if isinstance(value, Path) else value
