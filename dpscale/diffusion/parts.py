"""Where the parts of a model lie: together in one folder or hub repository, or each in its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dpscale.config.schema import DiffusionConfig, PartsConfig
from dpscale.data.types import InputError


@dataclass(frozen=True)
class Place:
    """Of one part. As a text it names the setting to correct."""

    setting: str
    """Key and value that led here."""
    part: str
    repository: str
    """Local folder or hub id."""
    subfolder: str
    """Of the part, inside the repository; empty: the repository itself."""

    def __str__(self) -> str:
        return f"{self.setting}: part {self.part!r}"

    @property
    def remedy(self) -> str:
        """Where a part can be named that is not here."""
        return f"; if it lies elsewhere, set diffusion.parts.{self.part}" if self.subfolder and self.part in PartsConfig.model_fields else ""

    @property
    def is_local(self) -> bool:
        """Whether the part lies on this machine's disk, with a config."""
        return (Path(self.repository) / self.subfolder / "config.json").is_file()


def part_place(settings: DiffusionConfig, weights: str | None, part: str) -> Place:
    """Place of a part: its own setting, else its folder in `weights`. Raises InputError where neither is given."""
    own = getattr(settings.parts, part, None)
    if own is not None:
        return Place(f"diffusion.parts.{part} = {own}", part, *_split(own))
    if weights is None:
        raise InputError(
            f"diffusion.weights is not set, nor is diffusion.parts.{part}: preset {settings.preset} needs a folder or hub id in diffusers "
            f"format for each of {', '.join(_needed(settings))}; docs/models.md lists published ones"
        )
    repository, inside = _split(weights)
    return Place(f"diffusion.weights = {weights}", part, repository, f"{inside}/{part}".strip("/"))


def named_parts_digest(settings: DiffusionConfig, parts: Sequence[str]) -> str:
    """Of those of `parts` that are named on their own: their weight files, or a hub id itself. Empty where none is."""
    named = {part: str(getattr(settings.parts, part)) for part in parts if getattr(settings.parts, part) is not None}
    digest = hashlib.sha256()
    for part, where in named.items():
        digest.update(f"{part}\n{_content(where)}\n".encode())
    return digest.hexdigest() if named else ""


def _content(where: str) -> str:
    if not Path(where).is_dir():
        return where
    digest = hashlib.sha256()
    for path in sorted([*Path(where).glob("*.safetensors"), *Path(where).glob("*.json")]):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _needed(settings: DiffusionConfig) -> tuple[str, ...]:
    adapter = ("motion_adapter",) if settings.preset == "sd15" else ()
    return ("unet", *adapter, "vae", "image_encoder", "scheduler")


def _split(text: str) -> tuple[str, str]:
    """A hub id is an owner and a name; what follows is a folder inside that repository."""
    if Path(text).is_dir() or text.startswith(("/", ".", "~")):
        return text, ""
    pieces = text.split("/")
    return "/".join(pieces[:2]), "/".join(pieces[2:])
