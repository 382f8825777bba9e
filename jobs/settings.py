"""From the command line to a Config."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from dpscale.config.load import ConfigError, load
from dpscale.config.schema import Config

CONFIGS = Path(__file__).parent / "configs"
DEFAULT_CONFIGS = {"demo": "demo.toml"}
"""Of the other jobs: tiny.toml."""
NEEDS_PERFORMERS = ("personalize", "demo", "preprocess", "finetune", "optimize", "evaluate", "report")
TAKES_PERFORMERS = tuple(job for job in NEEDS_PERFORMERS if job != "demo")


def config_of(arguments: argparse.Namespace) -> Config:
    """The config that the parsed command line asks for. Raises ConfigError."""
    performers = [performer(text) for text in getattr(arguments, "performer", [])]
    drives = [drive(text) for text in getattr(arguments, "drive", [])]
    path = arguments.config or CONFIGS / DEFAULT_CONFIGS.get(arguments.job, "tiny.toml")
    config = load(path, [*arguments.set, *_out(arguments.out)], {"performers": performers, "drives": drives})
    if arguments.job in NEEDS_PERFORMERS and not config.performers:
        raise ConfigError("no performers: add --performer NAME=clip.mp4, or name a CONFIG.toml that lists [[performers]]")
    return config


def performer(text: str) -> dict[str, Any]:
    """"anna=clips/anna.mp4" -> a video performer. Raises ConfigError."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise ConfigError(f"--performer {text}: write NAME=CLIP.mp4")
    return {"kind": "video", "name": name, "path": str(Path(path).absolute())}


def drive(text: str) -> dict[str, Any]:
    """"steps/Big Dance.mp4" -> a driving video named big-dance; "NAME=FILE" names it. Raises ConfigError."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        name, path = safe_stem(Path(text)), text
    if not name:
        raise ConfigError(f"--drive {text}: its file name gives no name; write NAME={text}")
    return {"kind": "video", "name": name, "path": str(Path(path).absolute())}


def safe_stem(path: Path) -> str:
    """The file's name as a name of the config: lower case, '-' for everything else; empty if nothing is left."""
    return re.sub(r"[^a-z0-9_]+", "-", path.stem.lower()).strip("-_")[:64]


def _out(folder: Path | None) -> list[str]:
    if folder is None:
        return []
    root, name = (json.dumps(text, ensure_ascii=False) for text in (str(folder.absolute().parent), folder.absolute().name))
    return [f"run.root={root}", f"run.name={name}"]
