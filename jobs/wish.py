"""`dpscale pause|resume|cancel|reprioritize RUN VIDEO...`: what the driver of a batch is asked to do."""

from __future__ import annotations

import argparse

from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError
from dpscale.scheduler.journal import segments
from dpscale.scheduler.logbook import journal_path, wishes_path
from dpscale.scheduler.wishes import WISHES, put_wish


def run(arguments: argparse.Namespace) -> int:
    """Leaves the wish in the run folder and returns at once. Raises InputError where no batch is under way, or it has no such video."""
    folder = RunLayout(arguments.folder.resolve()).scheduling
    last = next(reversed(segments(journal_path(folder))), None)
    if last is None or last.closed:
        raise InputError(f"{arguments.folder}: no batch of videos is under way there; `dpscale status` shows how the last one ended")
    open_videos = [name for name, video in last.end().videos.items() if video.ended is None]
    wished = open_videos if arguments.all else arguments.videos
    unknown = [name for name in wished if name not in open_videos]
    if unknown or not wished:
        what = f"{', '.join(unknown)}: no such video is under way" if unknown else "name the videos, or give --all"
        raise InputError(f"{what}. Under way in {arguments.folder}: {', '.join(open_videos) or 'none'}")
    more = {"priority": arguments.priority} if arguments.job == "reprioritize" else {}
    for name in wished:
        put_wish(wishes_path(folder), WISHES[arguments.job](name, **more))
    print(f"{arguments.job}: {', '.join(wished)}. The driver takes it in within seconds, or when the run is started again.")
    return 0
