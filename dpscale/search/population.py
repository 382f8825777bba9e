"""Population-based training (Jaderberg et al., 2017) in step: at every exchange the worst members of a video give up their states for those of
the best, and go on under settings a little different from theirs. Pure: no clock, no I/O, no ray.

All members rest at an exchange before any goes on, and what is drawn derives from the seed, so that neither speed nor a restart changes what
happens. A member's settings tell its whole way (`joint.changes`): the run that they describe, made alone, is the member's to the bit.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dpscale.config.schema import PopulationStopping
from dpscale.data.seeds import derive
from dpscale.search.halving import Stretch
from dpscale.search.pareto import price
from dpscale.search.space import CHANGES, Domain, Range, Settings


def exchanges(steps: int, every: float) -> list[int]:
    """Steps at which members are compared: each part `every` of all, before the end."""
    return sorted({step for n in range(1, math.ceil(1 / every)) if 0 < (step := round(n * every * steps)) < steps})


@dataclass
class _Members:
    """The population of one video."""

    settings: dict[int, Settings]
    """Of every member that has not failed."""
    rung: int = 0
    waiting: list[int] = field(default_factory=list)
    running: set[int] = field(default_factory=set)
    worth: dict[int, float] = field(default_factory=dict)
    """At the present exchange."""


class Population:
    """Hands out stretches and takes in their values."""

    def __init__(
        self,
        videos: Sequence[str],
        points: Sequence[Settings],
        steps: Sequence[int],
        how: PopulationStopping,
        space: Mapping[str, Domain],
        price_db: float,
        seed: int,
    ) -> None:
        """`steps`: of the exchanges."""
        self._steps, self._how, self._space, self._price_db, self._seed = steps, how, space, price_db, seed
        self._videos = {video: _Members(dict(enumerate(points)), waiting=list(range(len(points)))) for video in videos}

    @property
    def exhausted(self) -> bool:
        """Whether every stretch has been handed out and taken in."""
        return not any(members.waiting or members.running for members in self._videos.values())

    def next(self) -> Stretch | None:
        """The next stretch, of the video with the fewest at work. None: nothing is ready."""
        ready = [name for name, members in self._videos.items() if members.waiting]
        if not ready:
            return None
        video = min(ready, key=lambda name: len(self._videos[name].running))
        return self.take(video, self._videos[video].waiting[0])

    def take(self, video: str, point: int) -> Stretch:
        """Hands out a stretch of a certain member, which waits for one."""
        members = self._videos[video]
        members.waiting.remove(point)
        members.running.add(point)
        return Stretch(video, point, members.rung, members.settings[point])

    def done(self, stretch: Stretch, quality: float | None, cost: float) -> None:
        """A stretch has ended: its member's quality there, or None where it failed and is out."""
        members = self._videos[stretch.video]
        members.running.discard(stretch.point)
        if quality is None or math.isnan(quality):
            del members.settings[stretch.point]
        else:
            members.worth[stretch.point] = quality - price(cost, self._price_db)
        if not members.waiting and not members.running and members.rung < len(self._steps):
            self._exchange(stretch.video, members)

    def _exchange(self, video: str, members: _Members) -> None:
        order = sorted(members.settings, key=lambda point: -members.worth[point])
        num_replaced = min(math.ceil(self._how.replaced * len(order)), len(order) // 2)
        best, before = order[:num_replaced], dict(members.settings)
        for point in order[len(order) - num_replaced :]:
            draw = random.Random(derive(self._seed, "population", video, members.rung, point))
            members.settings[point] = self._varied(before[draw.choice(best)], self._steps[members.rung] + 1, draw)
        members.waiting, members.worth, members.rung = sorted(members.settings), {}, members.rung + 1

    def _varied(self, settings: Settings, from_step: int, draw: random.Random) -> Settings:
        """The same way up to a step, then other values."""
        changes = list(settings.get(CHANGES, ()))
        now = dict(settings) | {f"joint.{name}": value for change in changes for name, value in change.items()}
        new = {key.removeprefix("joint."): self._moved(domain, now[key], draw) for key, domain in self._space.items()}
        return {**settings, CHANGES: [*changes, {"from_step": from_step, **new}]}

    def _moved(self, domain: Domain, value: Any, draw: random.Random) -> Any:
        if draw.random() < self._how.drawn_anew:
            return domain.at(draw.random()) if isinstance(domain, Range) else draw.choice(domain)
        up = draw.random() < 0.5
        if isinstance(domain, Range):
            return min(max(value * self._how.factor if up else value / self._how.factor, domain.low), domain.high)
        ordered = sorted(domain)
        return ordered[min(max(ordered.index(value) + (1 if up else -1), 0), len(ordered) - 1)]
