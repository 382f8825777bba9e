"""Performers and drives as the command line names them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dpscale.config.load import ConfigError


def performer(text: str, person: int | None = None) -> dict[str, Any]:
    """ "anna=clips/anna.mp4" -> a video performer. Raises ConfigError."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise ConfigError(f"--performer {text}: write NAME=CLIP.mp4")
    chosen = {} if person is None else {"person": person}
    return {"kind": "video", "name": name, "path": str(Path(path).absolute()), **chosen}


def drive(text: str) -> dict[str, Any]:
    """ "steps/Big Dance.mp4" -> a driving video named big-dance; "NAME=FILE" names it. Raises ConfigError."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        name, path = safe_stem(Path(text)), text
    if not name:
        raise ConfigError(f"--drive {text}: its file name gives no name; write NAME={text}")
    return {"kind": "video", "name": name, "path": str(Path(path).absolute())}


def safe_stem(path: Path) -> str:
    """The file's name as a name of the config: lower case, '-' for everything else; empty if nothing is left."""
    return re.sub(r"[^a-z0-9_]+", "-", path.stem.lower()).strip("-_")[:64]
