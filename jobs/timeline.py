"""`dpscale timeline RUN`: the scheduler's journal as a Chrome trace."""

from __future__ import annotations

import argparse

from dpscale.data.checkpoint import write_json
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError
from dpscale.scheduler.journal import segments
from dpscale.scheduler.logbook import journal_path
from dpscale.scheduler.timeline import trace


def run(arguments: argparse.Namespace) -> int:
    folder = RunLayout(arguments.folder.resolve()).scheduling
    found = segments(journal_path(folder))
    if not found:
        raise InputError(f"{arguments.folder}: nothing was scheduled there yet; `dpscale optimize` and `dpscale personalize` do")
    out = arguments.out or folder / "timeline.json"
    write_json(out, trace(found))
    print(f"timeline: {out} (open it in https://ui.perfetto.dev or chrome://tracing)")
    return 0
