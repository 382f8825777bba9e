"""What the driver of a batch writes down and reads again: the journal, the status for people, and their wishes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from dpscale.data.checkpoint import write_json
from dpscale.scheduler.journal import Journal, Opening, Segment, segments
from dpscale.scheduler.messages import Cancelled, Event, Paused, Reprioritized, Role, Submitted, Wish
from dpscale.scheduler.records import Phase, VideoRecord
from dpscale.scheduler.state import Scheduler
from dpscale.scheduler.status import Rates, status
from dpscale.scheduler.wishes import take_wishes

log = logging.getLogger(__name__)


class Logbook:
    """In `folder` (RunLayout.scheduling); the driver holds the run folder alone."""

    def __init__(self, folder: Path, opening: Opening, now_s: float) -> None:
        self._folder, self._started_s = folder, now_s
        self._before = _unfinished(journal_path(folder), opening.fingerprints)
        self._journal = Journal(journal_path(folder), opening, now_s)
        self._rates = Rates()
        self._losses: dict[str, float] = {}

    def first_words(self, submitted: Submitted) -> Iterator[Event]:
        """What the scheduler is told of a video first: what an earlier driver, which did not come to its end, knew of it included."""
        known = self._before.get(submitted.video)
        if known is None:
            yield submitted
            return
        yield replace(submitted, failures=known.failures)
        if known.priority != submitted.priority:
            yield Reprioritized(known.name, known.priority)
        if known.paused:
            yield Paused(known.name)
        if known.ended is Phase.CANCELLED:
            yield Cancelled(known.name)

    def taken_in(self, event: Event, now_s: float) -> None:
        self._journal.append(event, now_s)

    def measured(self, role: Role, amount: float, seconds: float) -> None:
        """So many field steps, or frames of the diffusion model, took so long."""
        self._rates.add(role, amount, seconds)

    def lost(self, video: str, l1: float) -> None:
        """The newest |V_s - V_p| of a video, 0 .. 255 grey levels."""
        self._losses[video] = l1

    def wishes(self) -> list[Wish]:
        return take_wishes(wishes_path(self._folder))

    def show(self, scheduler: Scheduler, now_s: float) -> None:
        """What was taken in is safe from now on, and `dpscale status` sees it."""
        self._journal.sync()
        write_json(status_path(self._folder), status(scheduler, self._rates, self._losses, self._started_s, now_s))

    def close(self, scheduler: Scheduler, now_s: float) -> None:
        self.show(scheduler, now_s)
        self._journal.close(now_s, scheduler.is_finished)


def journal_path(folder: Path) -> Path:
    return folder / "journal.jsonl"


def status_path(folder: Path) -> Path:
    return folder / "status.json"


def wishes_path(folder: Path) -> Path:
    return folder / "wishes"


def _unfinished(path: Path, fingerprints: Mapping[str, str]) -> dict[str, VideoRecord]:
    """What earlier drivers knew, if they did not come to their end, of the videos that are still to be made in the same way."""
    known: dict[str, VideoRecord] = {}
    for segment in _segments(path):
        if segment.closed:
            known.clear()
            continue
        same = {name for name, fingerprint in segment.opening.fingerprints.items() if fingerprints.get(name) == fingerprint}
        known |= {name: video for name, video in segment.end().videos.items() if name in same}
    return known


def _segments(path: Path) -> list[Segment]:
    try:
        return segments(path)
    except (ValueError, KeyError, TypeError, IndexError) as error:  # of another version: its counts of failures are not worth a stop
        log.warning("%s cannot be read (%s); what is on the disk of each video counts", path, error)
        path.rename(path.with_suffix(".unreadable"))
        return []
