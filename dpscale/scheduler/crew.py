"""The actors of a run: what each of them is at, who is idle, who leaves or changes its role. As pure as state.py, which alone uses it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from statistics import fmean

from dpscale.scheduler.lines import IdleActors, Line
from dpscale.scheduler.messages import ActorReady, ReplaceActor, Role
from dpscale.scheduler.records import ActorRecord, VideoRecord

_OTHER = {Role.FIELD: Role.REFRESH, Role.REFRESH: Role.FIELD}


class Crew:
    """`mixed`: every actor does the work of both roles, whatever it is called. Otherwise every `rebalance_s` some of those actors of a role that had
    nothing to do change to the other one, where videos wait for it: whether field steps or diffusion are the bottleneck changes as videos go on.
    None: never."""

    def __init__(self, rebalance_s: float | None, mixed: bool) -> None:
        self._rebalance_s, self.mixed = None if mixed else rebalance_s, mixed
        one_line = IdleActors()
        self._idle = {role: one_line if mixed else IdleActors() for role in Role}
        self._starting: Counter[Role] = Counter()
        """Actors that were asked for and are not ready."""
        self._at_refresh: dict[int, None] = {}
        """Actors at a refresh, those who began first in front."""
        self._surplus: dict[Role, list[int]] = {role: [] for role in Role}
        """Of each role's actors, at every tick since `_balanced_s`."""
        self._balanced_s = 0.0
        self.actors: dict[int, ActorRecord] = {}

    def is_idle(self, role: Role) -> bool:
        """Whether an actor of the role is."""
        return len(self._idle[role]) > 0

    def longest_at_refresh(self) -> int | None:
        """The actor that will probably be free first."""
        return next(iter(self._at_refresh), None)

    def joined(self, event: ActorReady) -> None:
        actor = ActorRecord(event.number, event.role, event.node)
        self.actors[event.number] = actor
        self._starting[event.role] = max(0, self._starting[event.role] - 1)
        self._idle[actor.role].add(actor)

    def take(self, role: Role, wished: int | None) -> ActorRecord:
        """An idle actor, `wished` where it is idle. Raises KeyError where none is."""
        return self._idle[role].take(wished)

    def num_serving(self, role: Role) -> int:
        """Actors that do the work of a role."""
        return sum(self.mixed or actor.role is role for actor in self.actors.values())

    def began(self, actor: ActorRecord, video: VideoRecord, role: Role) -> None:
        actor.videos[video.name] = video
        if role is Role.REFRESH:
            self._at_refresh[actor.number] = None

    def ended(self, number: int, video: str, lost: bool) -> list[ReplaceActor]:
        """The actor is not at the video any more. Nothing follows where it was replaced before."""
        actor = self.actors.get(number)
        if actor is None or video not in actor.videos:
            return []
        del actor.videos[video]
        if not lost and actor.videos:
            return []
        self._at_refresh.pop(number, None)
        if lost or actor.leaving:
            return [self.replace(actor)]
        self._idle[actor.role].add(actor)
        return []

    def replace(self, actor: ActorRecord, role: Role | None = None) -> ReplaceActor:
        """By one of `role`, or of its own."""
        role, actor.leaving = role or actor.role, True
        del self.actors[actor.number]
        self._idle[actor.role].discard(actor.number)
        self._starting[role] += 1
        return ReplaceActor(actor.number, role)

    def leaving(self, node: str) -> list[ActorRecord]:
        """Those of a node that goes and have not been told yet; they begin nothing new."""
        those = [actor for actor in self.actors.values() if actor.node == node and not actor.leaving]
        for actor in those:
            actor.leaving = True
        return those

    def rebalance(self, waiting: Mapping[Role, Line], now_s: float) -> list[ReplaceActor]:
        """At every tick: half of the actors that were idle on average, while work of the other role waited, change to it; never the last one
        of a role."""
        if self._rebalance_s is None:
            return []
        for role, idle in self._idle.items():
            self._surplus[role].append(len(idle) if len(waiting[_OTHER[role]]) > self._starting[_OTHER[role]] else 0)
        if now_s - self._balanced_s < self._rebalance_s:
            return []
        commands: list[ReplaceActor] = []
        for role, seen in self._surplus.items():
            remaining = sum(actor.role is role and not actor.leaving for actor in self.actors.values())
            wished = min(math.ceil(fmean(seen) / 2), seen[-1], remaining - 1)
            commands += [self.replace(actor, _OTHER[role]) for actor in self._idle[role].longest()[: max(0, wished)]]
            seen.clear()
        self._balanced_s = now_s
        return commands
