"""What people want of a running batch: small files in the run folder, which its driver takes in. No port is opened, and storage decides who may."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
import uuid
from pathlib import Path

from pydantic import TypeAdapter

from dpscale.data.checkpoint import write_json
from dpscale.scheduler.messages import Cancelled, Paused, Reprioritized, Resumed, Wish

log = logging.getLogger(__name__)

WISHES: dict[str, type[Wish]] = {"cancel": Cancelled, "pause": Paused, "resume": Resumed, "reprioritize": Reprioritized}
"""By the name of the command that makes them."""


def put_wish(folder: Path, wish: Wish) -> None:
    """Leaves a wish in `folder`; the driver takes it in within a second or two, or when it is started again."""
    name = next(name for name, kind in WISHES.items() if isinstance(wish, kind))
    write_json(folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json", {"wish": name, **dataclasses.asdict(wish)})


def take_wishes(folder: Path) -> list[Wish]:
    """The wishes in `folder`, oldest first, and removes them. What is no wish is removed with a warning."""
    wishes: list[Wish] = []
    for path in sorted(folder.glob("[0-9]*.json")):
        try:
            wishes.append(_read(path))
        except (ValueError, KeyError) as error:
            log.warning("%s is not a wish (%s) and is left out", path, error)
        path.unlink(missing_ok=True)
    return wishes


def _read(path: Path) -> Wish:
    values = json.loads(path.read_text())
    return TypeAdapter(WISHES[values.pop("wish")]).validate_python(values)
