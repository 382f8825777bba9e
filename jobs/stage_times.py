"""Seconds spent in the stages of a run, over all commands that worked in its folder: <run>/stages.json."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dpscale.data.checkpoint import write_json
from dpscale.data.layout import RunLayout


def stage_seconds(layout: RunLayout) -> dict[str, float]:
    """Stage -> seconds so far. What a killed command spent in its last stage is not in it."""
    return json.loads(_file(layout).read_text()) if _file(layout).exists() else {}


def add_seconds(layout: RunLayout, stage: str, seconds: float) -> None:
    recorded = stage_seconds(layout)
    write_json(_file(layout), {**recorded, stage: round(recorded.get(stage, 0.0) + seconds, 2)})


@contextmanager
def measured(layout: RunLayout, stage: str) -> Iterator[None]:
    """Adds the seconds spent inside to `stage`, unless it fails."""
    start = time.monotonic()
    yield
    add_seconds(layout, stage, time.monotonic() - start)


def _file(layout: RunLayout) -> Path:
    return layout.root / "stages.json"
