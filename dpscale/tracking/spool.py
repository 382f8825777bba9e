"""Events on disk, on their way to a server: what is appended is kept until it was delivered, whatever ends in between.

    <folder>/00000001.jsonl ...   one event a line, in order; a process only appends to files that it began
    <folder>/delivered.json       how far they have arrived: replaced atomically, after the server's answer

An event whose answer was lost is read again, so whoever receives events must take a repeated one as the same one.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from dpscale.data.checkpoint import write_json
from dpscale.tracking.tracker import Event

log = logging.getLogger(__name__)

SEGMENT_BYTES = 16 * 2**20
"""A file of this size is followed by a new one; delivered files are removed."""


@dataclass(frozen=True, order=True)
class Position:
    """The next event to read: in which file, at which byte."""

    segment: int
    offset: int


class Spool:
    """A queue of events in `folder`, which is made. One process at a time; its threads may share it.

    Raises OSError where the folder cannot be written."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._marker = folder, folder / "delivered.json"
        folder.mkdir(parents=True, exist_ok=True)
        self._position = self._read_position() or Position(min(self._segments(), default=1), 0)
        self._remove_before(self._position)
        numbers = self._segments()
        # A new file in each process: one that a crash tore, or cut off behind what was delivered, is never written again.
        self._segment = max([*numbers, self._position.segment]) + 1
        self._file: IO[bytes] | None = None
        self._end = 0
        self._lock = threading.Lock()
        self._bytes = sum(self._path(number).stat().st_size for number in numbers) - self._position.offset

    @property
    def pending_bytes(self) -> int:
        """Appended and not delivered."""
        return max(0, self._bytes)

    def append(self, events: Sequence[Event]) -> None:
        """Hands the events to the operating system: they survive this process, and after `sync` the machine."""
        data = "".join(json.dumps(event, default=str) + "\n" for event in events).encode()
        with self._lock:
            file = self._writable()
            file.write(data)
            file.flush()
            self._end += len(data)
            self._bytes += len(data)

    def sync(self) -> None:
        with self._lock:
            if self._file is not None:
                os.fsync(self._file.fileno())

    def read(self, limit: int) -> tuple[list[Event], Position]:
        """At most `limit` of the oldest events that are not delivered yet, and the position after them."""
        events: list[Event] = []
        position = self._position
        for line, after in self._lines(self._position):
            if len(events) == limit:
                break
            position = after
            event = _parsed(line, after)
            if event is not None:
                events.append(event)
        return events, position

    def delivered(self, position: Position) -> None:
        """Everything before `position` has arrived: it is never read again, not even after a crash of the machine."""
        write_json(self._marker, asdict(position))
        with self._lock:
            self._bytes -= self._remove_before(position) + position.offset - self._position.offset
            self._position = position

    def close(self) -> None:
        self.sync()
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
                self._segment, self._end = self._segment + 1, 0

    def _remove_before(self, position: Position) -> int:
        """Removes delivered files; returns their size in bytes."""
        done = [self._path(number) for number in self._segments() if number < position.segment]
        size = sum(path.stat().st_size for path in done)
        for path in done:
            path.unlink()
        return size

    def _writable(self) -> IO[bytes]:
        if self._file is not None and self._end >= SEGMENT_BYTES:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file, self._segment, self._end = None, self._segment + 1, 0
        if self._file is None:
            self._file = self._path(self._segment).open("xb")
        return self._file

    def _lines(self, start: Position) -> Iterator[tuple[bytes, Position]]:
        """Whole lines from `start` on, each with the position after it."""
        with self._lock:
            numbers = [number for number in self._segments() if number >= start.segment]
            current, end = self._segment, self._end
        for number in numbers:
            yield from self._whole_lines(number, start.offset if number == start.segment else 0, end if number == current else None)

    def _whole_lines(self, number: int, offset: int, end: int | None) -> Iterator[tuple[bytes, Position]]:
        """Up to byte `end` (none: the file's): what follows was torn by a crash, or is being written."""
        with self._path(number).open("rb") as file:
            file.seek(offset)
            for line in file:
                offset += len(line)
                if not line.endswith(b"\n") or (end is not None and offset > end):
                    return
                yield line, Position(number, offset)

    def _segments(self) -> list[int]:
        return sorted(int(path.stem) for path in self._folder.glob("[0-9]*.jsonl"))

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}.jsonl"

    def _read_position(self) -> Position | None:
        try:
            return Position(**json.loads(self._marker.read_text()))
        except FileNotFoundError:
            return None


def _parsed(line: bytes, after: Position) -> Event | None:
    try:
        return json.loads(line)
    except ValueError:  # what a crash of the machine can leave in an unsynced file
        log.warning("tracking: an unreadable line before byte %d of spool file %d is left out", after.offset, after.segment)
        return None


def has_pending(folder: Path) -> bool:
    """Whether the spool in `folder` holds events that are not delivered. Creates nothing."""
    return folder.is_dir() and bool(Spool(folder).read(1)[0])
