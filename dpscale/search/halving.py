"""Which trial goes on, and how far: successive halving in step. Pure: no clock, no I/O, no ray.

All trials of a video rest at a rung before any is left behind, so that the decisions depend on values alone, never on who was faster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entrant:
    """One point of the space, for one video."""

    video: str
    point: int
    price: float
    """What its cost takes from its quality, in dB."""
    keys: tuple[str, ...]
    """At each rung: names the state there. Trials with equal names are not yet different."""
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Stretch:
    """A trial up to a rung; rung number `num_rungs` is its end."""

    video: str
    point: int
    rung: int
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass
class _Race:
    """The entrants of one video."""

    entrants: dict[int, Entrant]
    rung: int = 0
    waiting: list[int] = field(default_factory=list)
    running: set[int] = field(default_factory=set)
    values: dict[int, float] = field(default_factory=dict)
    """Quality at the present rung."""


def rungs(steps: int, first: float, reduction: float) -> list[int]:
    """Steps at which trials are compared: the part `first` of all, then `reduction` times as far, and so on."""
    found, part = [], first
    while part < 1:
        found.append(max(1, round(part * steps)))
        part *= reduction
    return sorted({step for step in found if step < steps})


class Halving:
    """Hands out stretches and takes in their values. Without rungs every trial runs to its end."""

    def __init__(self, entrants: Sequence[Entrant], num_rungs: int, reduction: float) -> None:
        self._num_rungs, self._reduction = num_rungs, reduction
        self._races: dict[str, _Race] = {}
        for entrant in entrants:
            race = self._races.setdefault(entrant.video, _Race({}))
            race.entrants[entrant.point] = entrant
            race.waiting.append(entrant.point)

    @property
    def exhausted(self) -> bool:
        """Whether every stretch has been handed out and taken in."""
        return not any(race.waiting or race.running for race in self._races.values())

    def next(self) -> Stretch | None:
        """The next stretch, of the video with the fewest at work: trials of one video wait for what they share. None: nothing is ready."""
        ready = [name for name, race in self._races.items() if race.waiting]
        if not ready:
            return None
        video = min(ready, key=lambda name: len(self._races[name].running))
        race = self._races[video]
        return self.take(video, race.waiting[0])

    def take(self, video: str, point: int) -> Stretch:
        """Hands out a stretch of a certain trial, which waits for one."""
        race = self._races[video]
        race.waiting.remove(point)
        race.running.add(point)
        return Stretch(video, point, race.rung, race.entrants[point].settings)

    def done(self, stretch: Stretch, quality: float | None, cost: float = 0.0) -> None:
        """A stretch has ended: its trial's quality there, or None where it failed and is out. The cost is known already."""
        race = self._races[stretch.video]
        race.running.discard(stretch.point)
        if quality is None or math.isnan(quality):
            del race.entrants[stretch.point]
        else:
            race.values[stretch.point] = quality
        if not race.waiting and not race.running and race.rung < self._num_rungs:
            race.waiting = self._surviving(race)
            race.rung += 1
            race.entrants = {point: race.entrants[point] for point in race.waiting}
            race.values = {}

    def _surviving(self, race: _Race) -> list[int]:
        """The best part of the different states, one in `reduction`, rounded up; all trials of a state stand and fall together. Where one
        trial is the cheapest, it goes on in any case: what is dearer is measured against its result, and no other costs less."""
        states: dict[str, list[int]] = {}
        for point, entrant in race.entrants.items():
            states.setdefault(entrant.keys[race.rung], []).append(point)
        best = {key: max(race.values[point] - race.entrants[point].price for point in points) for key, points in states.items()}
        kept = sorted(best, key=lambda key: -best[key])[: math.ceil(len(best) / self._reduction)]
        cheapest = min((entrant.price for entrant in race.entrants.values()), default=0.0)
        cheap = [point for point, entrant in race.entrants.items() if entrant.price == cheapest]
        spared = cheap if len(cheap) == 1 else []
        return [point for point, entrant in race.entrants.items() if entrant.keys[race.rung] in kept or point in spared]
