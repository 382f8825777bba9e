"""Who waits for what, and who is next: O(log n) a decision, however many wait."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from dpscale.scheduler.records import ActorRecord, VideoRecord

Key = Callable[[VideoRecord], tuple[float, ...]]


@runtime_checkable
class Line(Protocol):
    """The videos that wait for one role's actors. A video stands in it at most once, and does not change while it does."""

    def add(self, video: VideoRecord) -> None: ...

    def discard(self, video: VideoRecord) -> None:
        """Takes it out, if it is there."""
        ...

    def first(self) -> VideoRecord:
        """The one that is served next. Raises IndexError where nobody waits."""
        ...

    def take(self, video: VideoRecord | None = None) -> VideoRecord:
        """Takes out the first, or this one, to be served. Raises IndexError where nobody waits."""
        ...

    def __len__(self) -> int: ...


class Ordered:
    """Smallest key first, then in the order of submission."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self._heap: list[tuple[tuple[float, ...], int, int, VideoRecord]] = []
        self._waiting: dict[str, int] = {}
        """Number of the entry that counts; others in the heap have been taken out."""
        self._num_added = 0

    def add(self, video: VideoRecord) -> None:
        self._num_added += 1
        self._waiting[video.name] = self._num_added
        heapq.heappush(self._heap, (self._key(video), video.order, self._num_added, video))

    def discard(self, video: VideoRecord) -> None:
        self._waiting.pop(video.name, None)

    def first(self) -> VideoRecord:
        while True:
            _, _, number, video = self._heap[0]
            if self._waiting.get(video.name) == number:
                return video
            heapq.heappop(self._heap)

    def take(self, video: VideoRecord | None = None) -> VideoRecord:
        video = self.first() if video is None else video
        del self._waiting[video.name]
        return video

    def __len__(self) -> int:
        return len(self._waiting)


class FairShares:
    """Tenants are served in proportion to their weights; `key` decides among the videos of one.

    Start-time fair queueing (Goyal, Vin and Cheng 1996): a tenant's next piece has a start tag, the virtual time at which its earlier pieces
    would have ended at its own rate; the smallest tag is served. Virtual time is the tag served last, so that a tenant who comes back after a
    pause gets its share from then on, and no arrears."""

    def __init__(self, key: Key, cost: Callable[[VideoRecord], float], weights: Mapping[str, float]) -> None:
        self._key, self._cost, self._weights = key, cost, weights
        self._tenants: dict[str, Ordered] = {}
        self._tags: dict[str, float] = {}
        self._virtual_time = 0.0

    def add(self, video: VideoRecord) -> None:
        line = self._tenants.setdefault(video.tenant, Ordered(self._key))
        if len(line) == 0:
            self._tags[video.tenant] = max(self._tags.get(video.tenant, 0.0), self._virtual_time)
        line.add(video)

    def discard(self, video: VideoRecord) -> None:
        if video.tenant in self._tenants:
            self._tenants[video.tenant].discard(video)

    def first(self) -> VideoRecord:
        return self._tenants[self._first_tenant()].first()

    def take(self, video: VideoRecord | None = None) -> VideoRecord:
        """One that comes out of turn is charged too, and moves no time."""
        tenant = self._first_tenant() if video is None else video.tenant
        if video is None:
            self._virtual_time = self._tags[tenant]
        video = self._tenants[tenant].take(video)
        self._tags[tenant] += self._cost(video) / self._weights.get(tenant, 1.0)
        return video

    def __len__(self) -> int:
        return sum(len(line) for line in self._tenants.values())

    def _first_tenant(self) -> str:
        waiting = [tenant for tenant, line in self._tenants.items() if len(line) > 0]
        if not waiting:
            raise IndexError("nobody waits")
        return min(waiting, key=lambda name: (self._tags[name], name))


class IdleActors:
    """Actors of one role without work."""

    def __init__(self) -> None:
        self._idle: OrderedDict[int, ActorRecord] = OrderedDict()

    def add(self, actor: ActorRecord) -> None:
        self._idle[actor.number] = actor

    def discard(self, number: int) -> None:
        self._idle.pop(number, None)

    def take(self, wished: int | None) -> ActorRecord:
        """The actor `wished` if it is idle, else the one that became idle last. Raises KeyError where none is."""
        return self._idle.pop(wished) if wished is not None and wished in self._idle else self._idle.popitem()[1]

    def longest(self) -> list[ActorRecord]:
        """Those who have been idle longest first."""
        return list(self._idle.values())

    def __len__(self) -> int:
        return len(self._idle)
