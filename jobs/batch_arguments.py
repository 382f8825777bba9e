"""Jobs that look at a batch of videos, or tell its driver something, and their arguments."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

BATCH_JOBS = {
    "status": "where every video of a run stands, what waits and what is left",
    "pause": "bring videos of a running batch to a checkpoint and leave them there",
    "resume": "go on with paused videos",
    "cancel": "give up videos of a running batch",
    "reprioritize": "serve videos of a running batch earlier or later",
    "timeline": "what every worker did when, as a Chrome trace",
}

WISHES = ("pause", "resume", "cancel", "reprioritize")
"""Those that jobs/wish.py carries out."""


def _run(job: ArgumentParser) -> None:
    job.add_argument("folder", type=Path, metavar="RUN", help="run folder")


def _status(job: ArgumentParser) -> None:
    _run(job)
    job.add_argument("--follow", action="store_true", help="until every video has ended")
    job.add_argument("--json", action="store_true", help="everything as JSON, once")


def _timeline(job: ArgumentParser) -> None:
    _run(job)
    job.add_argument("--out", type=Path, metavar="FILE.json", help="none: scheduling/timeline.json in the run folder")


def _wish(job: ArgumentParser) -> None:
    _run(job)
    job.add_argument("videos", nargs="*", metavar="VIDEO", help="PERFORMER--DRIVE, as `dpscale status` shows them")
    job.add_argument("--all", action="store_true", help="every video that has not ended")


def _reprioritize(job: ArgumentParser) -> None:
    _wish(job)
    job.add_argument("--priority", type=int, required=True, metavar="N", help="larger is served earlier; 0 is usual")


BATCH_ARGUMENTS: dict[str, Callable[[ArgumentParser], None]] = {
    "status": _status,
    "timeline": _timeline,
    **dict.fromkeys(WISHES, _wish),
    "reprioritize": _reprioritize,
}
