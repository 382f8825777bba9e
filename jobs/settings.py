"""From the command line to a Config."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dpscale.config.load import ConfigError, load
from dpscale.config.schema import Config
from jobs.footage_names import drive, performer

CONFIGS = Path(__file__).parent / "configs"
DEFAULT_CONFIGS = {"demo": "demo.toml", "plan": "sd21.toml", "search": "search.toml"}
"""Of the other jobs: tiny.toml."""
NEEDS_PERFORMERS = ("personalize", "demo", "preprocess", "finetune", "optimize", "evaluate", "report", "search")
TAKES_PERFORMERS = tuple(job for job in NEEDS_PERFORMERS if job != "demo")


def config_of(arguments: argparse.Namespace) -> Config:
    """The config that the parsed command line asks for. Raises ConfigError."""
    performers = [performer(text, getattr(arguments, "person", None)) for text in getattr(arguments, "performer", [])]
    if getattr(arguments, "clips", None):
        from dpscale.preprocess.clip_table import read_clip_table, to_performers  # pyarrow

        performers += to_performers(read_clip_table(arguments.clips))
    drives = [drive(text) for text in getattr(arguments, "drive", [])]
    path = arguments.config or CONFIGS / DEFAULT_CONFIGS.get(arguments.job, "tiny.toml")
    config = load(path, [*arguments.set, *_out(arguments.out)], {"performers": performers, "drives": drives})
    if arguments.job in NEEDS_PERFORMERS and not config.performers:
        raise ConfigError("no performers: add --performer NAME=clip.mp4, or name a CONFIG.toml that lists [[performers]]")
    return config


def _out(folder: Path | None) -> list[str]:
    if folder is None:
        return []
    root, name = (json.dumps(text, ensure_ascii=False) for text in (str(folder.absolute().parent), folder.absolute().name))
    return [f"run.root={root}", f"run.name={name}"]
