"""Every event that the scheduler was told, on disk: what a new driver needs to know of an old one, and what happened when.

A journal is JSON Lines, in segments: a driver opens one with the settings under which it decides, appends events, and closes it when every
video has ended. The scheduler decides alike from like events, so a segment that is replayed gives its records and commands again."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from dpscale.config.schema import SchedulerConfig
from dpscale.scheduler.messages import Command, Event, Role, Submitted, VideoWork
from dpscale.scheduler.policy import make_policy
from dpscale.scheduler.state import Scheduler

_EVENTS: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}


@dataclass(frozen=True)
class Opening:
    """The first line of a segment."""

    settings: SchedulerConfig
    fingerprints: Mapping[str, str]
    """Of each video: what was known of it holds only under the same one."""
    rebalance_s: float | None
    """`scheduler.rebalance_s`, or None where the roles ask for different resources."""

    def scheduler(self) -> Scheduler:
        settings = self.settings
        return Scheduler(make_policy(settings), settings.max_failures, settings.stall_s, self.rebalance_s, settings.refresh_together, settings.mixed)


@dataclass(frozen=True)
class Segment:
    opening: Opening
    events: list[tuple[float, Event]]
    """With the time, in seconds since 1970, at which each was taken in."""
    closed: bool

    def replay(self) -> Iterator[tuple[float, Event, list[Command], Scheduler]]:
        """Each event, what followed from it, and the scheduler after it (always the same object)."""
        scheduler = self.opening.scheduler()
        for at, event in self.events:
            yield at, event, scheduler.handle(event, at), scheduler

    def end(self) -> Scheduler:
        """The scheduler after the last event."""
        scheduler = self.opening.scheduler()
        for _, _, _, scheduler in self.replay():  # noqa: B007 - the last one counts
            pass
        return scheduler


class Journal:
    """Appends to the journal at `path`. What was appended before `sync` survives a crash of the machine."""

    def __init__(self, path: Path, opening: Opening, now_s: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(path)
        self._file = path.open("a", encoding="utf-8")
        self._write(
            now_s,
            opened=opening.settings.model_dump(mode="json"),
            fingerprints=dict(opening.fingerprints),
            rebalance_s=opening.rebalance_s,
        )
        self.sync()

    def append(self, event: Event, now_s: float) -> None:
        self._write(now_s, event=type(event).__name__, **dataclasses.asdict(event))

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self, now_s: float, finished: bool) -> None:
        """`finished`: every video has ended, and the next driver starts afresh."""
        if finished:
            self._write(now_s, closed=True)
        self.sync()
        self._file.close()

    def _write(self, now_s: float, **line: Any) -> None:
        self._file.write(json.dumps({"t": round(now_s, 3), **line}, default=_plain) + "\n")


def segments(path: Path) -> list[Segment]:
    """What is in the journal at `path`, oldest first; a last line that was cut off is left out. Empty where there is none.

    Raises ValueError where a line is not of this version's journal."""
    found: list[Segment] = []
    for line in _whole_lines(path):
        if "opened" in line:
            opening = Opening(SchedulerConfig.model_validate(line["opened"]), line["fingerprints"], line["rebalance_s"])
            found.append(Segment(opening, [], closed=False))
        elif "closed" in line:
            found[-1] = dataclasses.replace(found[-1], closed=True)
        else:
            found[-1].events.append((line.pop("t"), _event_of(line)))
    return found


def _event_of(line: dict[str, Any]) -> Event:
    kind = _EVENTS.get(line.pop("event"))
    if kind is None:
        raise ValueError("the journal holds an event that this version does not know")
    if kind is Submitted:
        line["work"] = VideoWork(**line["work"])
    if "role" in line:
        line["role"] = Role(line["role"])
    return kind(**line)


def _plain(value: object) -> str:
    assert isinstance(value, Role), f"{value!r} has no place in a journal"
    return value.value


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def _cut_torn_line(path: Path) -> None:
    """A driver that was killed may have left half a line; nothing may be appended to it."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
