"""Which performer trains next: by priority, with a cap on how many of one tenant train at once. No Ray in here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Waiting:
    """A performer that is to be finetuned."""

    name: str
    tenant: str
    priority: int
    """Higher goes first; equals go in the order in which they came."""


class PerformerQueue:
    """At most `most` at once, and at most `most_of_tenant` of each tenant; a tenant at its cap lets others of lower priority pass."""

    def __init__(self, waiting: Sequence[Waiting], most: int, most_of_tenant: int | None) -> None:
        self._waiting = sorted(waiting, key=lambda one: -one.priority)  # stable
        self._running: dict[str, Waiting] = {}
        self._most, self._most_of_tenant = most, most_of_tenant

    @property
    def exhausted(self) -> bool:
        """Whether nobody waits any more."""
        return not self._waiting

    def next(self) -> str | None:
        """The performer to start now, which counts as running from here on; None while the caps hold everybody back."""
        if len(self._running) >= self._most:
            return None
        of_tenant = Counter(one.tenant for one in self._running.values())
        for one in self._waiting:
            if self._most_of_tenant is None or of_tenant[one.tenant] < self._most_of_tenant:
                self._waiting.remove(one)
                self._running[one.name] = one
                return one.name
        return None

    def done(self, name: str) -> None:
        """A performer that was started has ended, well or not."""
        del self._running[name]
