"""Everything goes to disk first and from there to the store, so a run never waits for a server and loses nothing to one that is away."""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from dpscale.config.schema import TrackingConfig
from dpscale.data.types import InputError
from dpscale.tracking.lane import Lane, Outage
from dpscale.tracking.spool import Spool, has_pending
from dpscale.tracking.tracker import Event, Recorder

log = logging.getLogger(__name__)

LOCK_S = 10.0
"""How long a writer waits for the last one of the same folder to end."""

LANES = {"events": ("start", "metrics", "tags", "finish"), "files": ("artifact", "register")}
"""Files travel apart: a store of files that is away, or slow, holds back no points."""


@runtime_checkable
class Store(Protocol):
    """Where events arrive. Called from two threads."""

    def open(self) -> None:
        """Raises InputError where the settings are wrong, Outage where nobody answers."""
        ...

    def deliver(self, events: Sequence[Event]) -> None:
        """Takes a repeated event as the same one. Raises Outage or Refused (dpscale.tracking.lane)."""
        ...


class SpooledTracker(Recorder):
    """Implements Tracker. `folder` belongs to one process at a time; what an earlier one left there is delivered first.

    Raises InputError where the folder cannot be written, another process writes there, or the store's settings are wrong."""

    def __init__(self, folder: Path, store: Store, config: TrackingConfig) -> None:
        self._drain_s, self._limit_bytes = config.drain_s, config.spool_gib * 2**30
        self._folder, self._is_full = folder, False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / "lock").open("a")
            _claim(self._lock.fileno(), folder)
            self._spools = {name: Spool(folder / name) for name in LANES}
        except OSError as error:
            raise InputError(f"{folder} cannot be written ({error}); free the path, or set tracking.kind = 'none'") from error
        try:
            store.open()
        except Outage as error:
            log.warning("%s; the run goes on, and its record is kept in %s until the server answers", error, folder)
        self._lanes = {name: Lane(spool, store.deliver, folder / name / "refused.jsonl") for name, spool in self._spools.items()}

    def record(self, events: Sequence[Event]) -> None:
        """Returns when the operating system has the events, never later for any server."""
        for name, kinds in LANES.items():
            own = self._within_limit([event for event in events if event["event"] in kinds])
            if own:
                self._lanes[name].append(own)
            if any(event["event"] != "metrics" for event in own):
                self._spools[name].sync()

    def flush(self) -> None:
        """Everything is on disk after this, and at the server if it answers within `tracking.drain_s`."""
        end = time.monotonic() + self._drain_s
        for spool in self._spools.values():
            spool.sync()
        arrived = [lane.wait(max(0.0, end - time.monotonic())) for lane in self._lanes.values()]
        if not all(arrived):
            log.warning("tracking: part of the record waits in %s; the same command or `dpscale report` sends it later", self._folder)

    def close(self) -> None:
        self.flush()
        for lane in self._lanes.values():
            lane.close()
        for spool in self._spools.values():
            spool.close()
        self._lock.close()

    def _within_limit(self, events: list[Event]) -> list[Event]:
        """Without points where the disk holds too much already: a server may be away for ever."""
        if sum(spool.pending_bytes for spool in self._spools.values()) < self._limit_bytes:
            return events
        if not self._is_full:
            log.warning("tracking: more than tracking.spool_gib waits in %s; points are dropped from now on until the server answers", self._folder)
        self._is_full = True
        return [event for event in events if event["event"] != "metrics"]


def pending(folder: Path) -> bool:
    """Whether an earlier process left events in `folder` that have not arrived."""
    return any(has_pending(folder / name) for name in LANES)


def _claim(descriptor: int, folder: Path) -> None:
    end = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however that ends
            return
        except BlockingIOError as error:
            if time.monotonic() > end:
                raise InputError(f"{folder}: another process writes this run's record; wait for it to end") from error
            time.sleep(0.1)
