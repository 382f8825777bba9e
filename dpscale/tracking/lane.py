"""A thread that brings the events of one spool to a store, in order, however long the store is away."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dpscale.tracking.spool import Position, Spool
from dpscale.tracking.tracker import Event

log = logging.getLogger(__name__)

MAX_BATCH, MIN_BATCH = 1000, 50
"""Events sent at once: halved after each failure, for a server may be too slow for many, doubled after each success."""

LINGER_S = 0.25
"""How long events are collected before they are sent, unless somebody waits for them."""

MAX_PAUSE_S = 15.0
"""Longest pause between two attempts; the first is a second, each next one twice the last."""

PATIENCE = 8
"""Attempts before an event is given up that the store may or may not refuse for good."""


class Outage(Exception):
    """The store cannot be reached, or does not do its work: what was sent may or may not have arrived, and is to be sent again."""


class Refused(Exception):
    """The store has understood, and says no. Not `certain`: the same answer has been seen from a failing database."""

    def __init__(self, message: str, certain: bool) -> None:
        super().__init__(message)
        self.certain = certain


class Lane:
    """Delivers what is in `spool` until `close`. `deliver` raises Outage or Refused, and takes a repeated event as the same one.

    Events that are refused are kept in `refused`, a file of JSON lines."""

    def __init__(self, spool: Spool, deliver: Callable[[Sequence[Event]], None], refused: Path) -> None:
        self._spool, self._deliver, self._refused = spool, deliver, refused
        self._batch, self._failures, self._doubts, self._left_out = MAX_BATCH, 0, 0, 0
        self._changed = threading.Condition()
        self._waiting, self._closed, self._is_empty = 0, False, False
        self._attempts = 0
        self._thread = threading.Thread(target=self._run, name=f"tracking-{refused.parent.name}", daemon=True)
        self._thread.start()

    def append(self, events: Sequence[Event]) -> None:
        self._spool.append(events)
        with self._changed:
            self._is_empty = False
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Whether everything that was appended has arrived: waits for it, but neither longer than `timeout_s` nor for a store that is away."""
        end = time.monotonic() + timeout_s
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
            attempts = self._attempts
            while not self._is_empty and time.monotonic() < end and not (self._failures and self._attempts > attempts):
                self._changed.wait(max(0.0, min(0.5, end - time.monotonic())))
            self._waiting -= 1
            return self._is_empty

    def close(self) -> None:
        """Ends the thread after the call under way; what is left stays in the spool."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while True:
            events, after = self._next()
            if after is None:
                return
            pause_s = self._attempt(events, after)
            with self._changed:
                self._attempts += 1
                self._changed.notify_all()
                if pause_s > 0 and not self._closed:
                    self._pause(pause_s)

    def _next(self) -> tuple[list[Event], Position | None]:
        """Blocks until there is something to deliver; (.., None) when closed."""
        while True:
            with self._changed:
                if self._closed:
                    return [], None
                if self._waiting == 0:
                    self._changed.wait_for(lambda: self._closed or self._waiting > 0, LINGER_S)
                self._is_empty = False
            events, after = self._spool.read(self._batch)
            if events:
                return events, after
            with self._changed:
                pending = self._spool.read(1)[0]
                if not pending:
                    self._is_empty = True
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._closed or not self._is_empty)

    def _attempt(self, events: list[Event], after: Position) -> float:
        """Returns the seconds to wait before the next attempt."""
        try:
            self._deliver(events)
        except Refused as error:
            return self._after_refusal(events, after, error)
        except Exception as error:  # an Outage, or what a driver of some database or file store raises
            return self._after_failure(error)
        if self._failures:
            log.warning("tracking: the server answers again; what was kept on disk is being sent")
        self._failures, self._doubts, self._batch = 0, 0, min(2 * self._batch, MAX_BATCH)
        self._spool.delivered(after)
        return 0.0

    def _after_failure(self, error: Exception) -> float:
        if self._failures == 0:
            log.warning("tracking: %s; the run goes on, and its record is kept on disk until the server answers", error)
        self._failures += 1
        self._batch = max(self._batch // 2, min(self._batch, MIN_BATCH))
        return min(MAX_PAUSE_S, 2.0 ** (self._failures - 1))

    def _after_refusal(self, events: list[Event], after: Position, error: Refused) -> float:
        """Finds the event that is refused by sending one at a time, and leaves it out."""
        if not error.certain and self._doubts < PATIENCE:
            self._doubts += 1
            return self._after_failure(error)
        if len(events) > 1:
            self._batch = 1
            return 0.0
        if self._left_out == 0:
            log.warning("tracking: refused by the server and left out (%s); this and later ones are kept in %s", error, self._refused)
        with self._refused.open("a") as file:
            file.write(json.dumps({"error": str(error), **events[0]}) + "\n")
        self._left_out, self._failures = self._left_out + 1, 0
        self._spool.delivered(after)
        return 0.0

    def _pause(self, seconds: float) -> None:
        """Until the time is over, or somebody begins to wait: then one attempt is made at once."""
        waiting = self._waiting
        self._changed.wait_for(lambda: self._closed or self._waiting > waiting, seconds)
