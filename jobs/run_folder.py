"""A run folder belongs to one set of settings, and to one driver at a time."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from dpscale.config.load import ConfigError, differences, read_resolved, resolved
from dpscale.config.schema import Config
from dpscale.data.checkpoint import TEMPORARY, write_json
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError


@contextmanager
def claimed(config: Config, layout: RunLayout) -> Iterator[None]:
    """Holds the run folder while a job works in it and writes the resolved config there.

    Raises ConfigError if other settings made what is there, InputError if another driver is at work there."""
    layout.root.mkdir(parents=True, exist_ok=True)
    with (layout.root / ".lock").open("a") as lock:  # the system drops the lock with the process, however it ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{layout.root}: another dpscale is at work in this folder; wait for it, or give another --out") from error
        check_unchanged(config, layout)
        _remove_half_written(layout)
        write_json(layout.resolved_config, resolved(config))
        yield


def _remove_half_written(layout: RunLayout) -> None:
    """What killed writers left behind (see dpscale.data.checkpoint): nobody reads it, and it may be what fills the disk."""
    for path in list(layout.root.rglob(f"{TEMPORARY}*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def check_unchanged(config: Config, layout: RunLayout) -> None:
    """Raises ConfigError that lists the keys whose change would mix the results of two settings in one folder."""
    if not layout.resolved_config.exists():
        return
    changed = differences(read_resolved(layout.resolved_config), resolved(config))
    if changed:
        lines = "\n".join(f"  {key}: was {json.dumps(old)}, is now {json.dumps(new)}" for key, (old, new) in changed.items())
        raise ConfigError(
            f"{layout.root} holds results of other settings:\n{lines}\n"
            "Give this run a folder of its own (--out DIR or --set run.name=NAME), restore the settings, or remove that folder."
        )
