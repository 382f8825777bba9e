"""The status of a batch as a table."""

from __future__ import annotations

import time
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from jobs.progress import clock

SILENCE_S = 15.0
"""After which a driver is said to be gone: it writes every second or two."""

ENDS = {"done", "failed", "cancelled"}


def status_table(status: dict[str, Any]) -> Group:
    """L1: between field and targets, in grey levels. Failures and priorities have columns where there are any: the rest fits 80 characters."""
    videos = status["videos"]
    more = [name for name in ("failures", "priority") if any(video[name] for video in videos)]
    columns = (Column(name, no_wrap=True) for name in ("video", "phase", "steps", "passes", "L1", "left", *more))
    table = Table(*columns, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for video in videos:
        counts = ["/".join(map(str, video[key])) for key in ("steps", "refreshes")]
        left = "-" if video["left_s"] is None else clock(video["left_s"])
        l1 = "-" if video["l1"] is None else f"{video['l1']:.2f}"
        table.add_row(video["name"], video["phase"], *counts, l1, left, *(str(video[name]) for name in more))
    return Group(table, Text(_summary(status)))


def _role(role: str, workers: dict[str, int], waiting: int) -> str:
    """Where workers share calls, with how many videos they have."""
    several = f" on {workers['videos']} videos" if workers.get("videos", 0) > workers["busy"] else ""
    return f"{role}: {workers['busy']} of {workers['all']} at work{several}, {waiting} waiting"


def _summary(status: dict[str, Any]) -> str:
    phases = ", ".join(f"{number} {phase}" for phase, number in status["phases"].items())
    roles = ", ".join(_role(role, n, status["waiting"][role]) for role, n in status["actors"].items())
    over, silent_s = set(status["phases"]) <= ENDS, time.time() - status["updated_s"]
    left = "" if over or status["eta_s"] is None else f", at least {clock(status['eta_s'])} left"
    gone = "" if over or silent_s < SILENCE_S else f"\nno word from the driver for {clock(silent_s)}: the run's own command goes on from here"
    return f"{phases}\n{roles}\n{clock(status['elapsed_s'])} since the start{left}{gone}"
