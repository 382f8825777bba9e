"""`dpscale status RUN`: what the driver of a batch wrote down last."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError
from dpscale.scheduler.logbook import status_path
from jobs.status_table import ENDS, status_table


def run(arguments: argparse.Namespace) -> int:
    path = status_path(RunLayout(arguments.folder.resolve()).scheduling)
    status, console = _read(path, arguments.folder), Console(soft_wrap=False)
    if arguments.json:
        print(json.dumps(status, indent=2))
        return 0
    if not arguments.follow:
        console.print(status_table(status))
        return 0
    with Live(status_table(status), console=console, refresh_per_second=1) as live:
        while not set(status["phases"]) <= ENDS:
            time.sleep(1)
            status = _read(path, arguments.folder)
            live.update(status_table(status))
    return 0


def _read(path: Path, folder: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError(f"{folder}: nothing was scheduled there yet; `dpscale optimize` and `dpscale personalize` do")
    return json.loads(path.read_text())
