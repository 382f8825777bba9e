"""What the joint optimisation of many videos does next: events in, commands out. No I/O, no clock, no Ray, no torch.

A video alternates slices of field steps with diffusion passes:

    PENDING --StartSlice--> OPTIMISING --SliceDone--> PENDING | REFRESH_WANTED | DONE
    REFRESH_WANTED --StartRefresh--> REFRESHING --RefreshDone--> PENDING
    REFRESHING --StopRefresh--> REFRESHING --RefreshStopped--> REFRESH_WANTED
    OPTIMISING, REFRESHING --WorkFailed--> where it came from | FAILED
    every phase that is not final --Paused--> PAUSED, as soon as nothing is under way --Resumed--> where it came from
    every phase that is not final --Cancelled--> CANCELLED

Where refreshes overlap (joint.refresh_overlap), a video that is PENDING or OPTIMISING may have a refresh waiting or running beside it; only
when its steps are blocked it is REFRESH_WANTED or REFRESHING.

Every piece of work carries a ticket. An event whose ticket is of no piece under way comes from work that was given up, and changes nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from statistics import fmean
from typing import Any

from dpscale.scheduler.lines import IdleActors
from dpscale.scheduler.messages import (
    ActorReady,
    Cancelled,
    Command,
    Event,
    Finish,
    NodeDraining,
    Paused,
    Prefetch,
    RefreshDone,
    RefreshStopped,
    ReplaceActor,
    Report,
    Reprioritized,
    Resumed,
    Role,
    SliceDone,
    StartRefresh,
    StartSlice,
    StopRefresh,
    Submitted,
    Tick,
    Wish,
    WorkFailed,
)
from dpscale.scheduler.policy import Lines
from dpscale.scheduler.records import ActorRecord, Phase, Piece, VideoRecord

_ENDS: dict[Role, tuple[type[Report], ...]] = {Role.FIELD: (SliceDone, WorkFailed), Role.REFRESH: (RefreshDone, RefreshStopped, WorkFailed)}
"""How a piece of work of each role may end."""

_OTHER = {Role.FIELD: Role.REFRESH, Role.REFRESH: Role.FIELD}


class Scheduler:
    """All videos and actors of a run, and the rules by which they change.

    `lines` say who is served first (policy.make_policy). A video that fails more than `max_failures` times is given up; work that is under way
    for longer than `stall_s` counts as a failure, and its actor as lost. Every `rebalance_s` some of those actors of a role that had nothing to
    do change to the other one, where videos wait for it: whether field steps or diffusion are the bottleneck changes as videos go on. None: never."""

    def __init__(self, lines: Lines, max_failures: int, stall_s: float | None = None, rebalance_s: float | None = None) -> None:
        self._lines, self._max_failures, self._stall_s, self._rebalance_s = lines, max_failures, stall_s, rebalance_s
        self._idle = {role: IdleActors() for role in Role}
        self._starting: Counter[Role] = Counter()
        """Actors that were asked for and are not ready."""
        self._at_refresh: dict[int, None] = {}
        """Actors at a refresh, those who began first in front."""
        self._foreseen: str | None = None
        """The video that was prefetched last."""
        self._surplus: dict[Role, list[int]] = {role: [] for role in Role}
        """Of each role's actors, at every tick since `_balanced_s`."""
        self._balanced_s = 0.0
        self._num_ended = 0
        self.videos: dict[str, VideoRecord] = {}
        self.actors: dict[int, ActorRecord] = {}
        self._transitions: dict[type[Event], Callable[[Any, float], list[Command]]] = {
            Submitted: self._submitted,
            ActorReady: self._actor_ready,
            NodeDraining: self._node_draining,
            Tick: self._tick,
            SliceDone: self._reported,
            RefreshDone: self._reported,
            RefreshStopped: self._reported,
            WorkFailed: self._reported,
            Cancelled: self._wished,
            Paused: self._wished,
            Resumed: self._wished,
            Reprioritized: self._wished,
        }

    @property
    def is_finished(self) -> bool:
        return self._num_ended == len(self.videos)

    def num_waiting(self, role: Role) -> int:
        """Videos that an actor of that role could go on with now."""
        return len(self._lines[role])

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Takes in what happened at `now_s` and says what to do. The commands are taken as begun."""
        return self._transitions[type(event)](event, now_s) + self._place(now_s) + self._foresee()

    # ------------------------------------------------------------------------------- actors

    def _actor_ready(self, event: ActorReady, now_s: float) -> list[Command]:
        actor = ActorRecord(event.number, event.role, event.node)
        self.actors[event.number] = actor
        self._starting[event.role] = max(0, self._starting[event.role] - 1)
        self._idle[actor.role].add(actor)
        return []

    def _node_draining(self, event: NodeDraining, now_s: float) -> list[Command]:
        """Idle actors go at once. Slices end soon by themselves; a refresh is told to stop."""
        commands: list[Command] = []
        for actor in [actor for actor in self.actors.values() if actor.node == event.node and not actor.leaving]:
            actor.leaving = True
            if actor.video is None:
                commands += self._replace(actor, actor.role)
            else:
                commands += self._stop(self.videos[actor.video].under_way[actor.role], actor.video)
        return commands

    def _tick(self, event: Tick, now_s: float) -> list[Command]:
        return self._give_up_hung(now_s) + self._rebalance(now_s)

    def _rebalance(self, now_s: float) -> list[Command]:
        """Half of the actors that were idle on average, while work of the other role waited, change to it; never the last one of a role."""
        if self._rebalance_s is None:
            return []
        for role, idle in self._idle.items():
            self._surplus[role].append(len(idle) if len(self._lines[_OTHER[role]]) > self._starting[_OTHER[role]] else 0)
        if now_s - self._balanced_s < self._rebalance_s:
            return []
        commands: list[Command] = []
        for role, seen in self._surplus.items():
            remaining = sum(actor.role is role and not actor.leaving for actor in self.actors.values())
            wished = min(math.ceil(fmean(seen) / 2), seen[-1], remaining - 1)
            for actor in self._idle[role].longest()[: max(0, wished)]:
                commands += self._replace(actor, _OTHER[role])
            seen.clear()
        self._balanced_s = now_s
        return commands

    def _give_up_hung(self, now_s: float) -> list[Command]:
        if self._stall_s is None:
            return []
        commands: list[Command] = []
        at_work = [(actor.video, actor.role) for actor in self.actors.values() if actor.video is not None]
        for video, role in at_work:
            piece = self.videos[video].under_way[role]
            if now_s - piece.started_s > self._stall_s:
                error = f"nothing was heard for {now_s - piece.started_s:.0f} s (scheduler.stall_s)"
                commands += self._reported(WorkFailed(video, piece.ticket, error, retry=True, actor_lost=True), now_s)
        return commands

    def _replace(self, actor: ActorRecord, role: Role) -> list[Command]:
        del self.actors[actor.number]
        self._idle[actor.role].discard(actor.number)
        self._starting[role] += 1
        return [ReplaceActor(actor.number, role)]

    def _release(self, actor: ActorRecord, lost: bool) -> list[Command]:
        actor.video = None
        self._at_refresh.pop(actor.number, None)
        if lost or actor.leaving:
            return self._replace(actor, actor.role)
        self._idle[actor.role].add(actor)
        return []

    def _stop(self, piece: Piece, video: str) -> list[Command]:
        return [StopRefresh(video, piece.actor, piece.ticket)] if piece.role is Role.REFRESH else []

    # ------------------------------------------------------------------------------- videos

    def _submitted(self, event: Submitted, now_s: float) -> list[Command]:
        if event.video in self.videos:
            raise ValueError(f"video {event.video!r} was submitted twice")
        video = VideoRecord(event.video, len(self.videos), event.work, event.num_frames, event.tenant, event.priority, event.deadline_s)
        video.failures, video.submitted_s = event.failures, now_s
        self.videos[event.video] = video
        self._queue(video)
        return []

    def _reported(self, report: Report, now_s: float) -> list[Command]:
        video = self.videos[report.video]
        piece = next((piece for piece in video.under_way.values() if piece.ticket == report.ticket), None)
        if piece is None or not isinstance(report, _ENDS[piece.role]):
            return []
        self._leave_lines(video)
        del video.under_way[piece.role]
        commands = self._release(self.actors[piece.actor], isinstance(report, WorkFailed) and report.actor_lost)
        if video.ended is None:
            commands += self._take_in(video, report, now_s)
        self._queue(video)
        return commands

    def _take_in(self, video: VideoRecord, report: Report, now_s: float) -> list[Command]:
        if isinstance(report, SliceDone):
            return self._slice_done(video, report, now_s)
        if isinstance(report, RefreshDone):
            self._made(video, report.refreshes_done)
            return []
        return self._work_failed(video, report, now_s) if isinstance(report, WorkFailed) else []

    def _slice_done(self, video: VideoRecord, report: SliceDone, now_s: float) -> list[Command]:
        video.steps_done, video.num_frames = report.steps_done, report.num_frames
        if report.finished:
            video.refreshes_done = report.refreshes_done
            return self._end(video, Phase.DONE, None, now_s)
        made = max(video.refreshes_done, report.refreshes_done)
        video.wanted, video.blocked = (report.refreshes_done, report.steps_blocked) if report.refresh_wanted else (None, False)
        # The refresh may have been made while the slice that asked for it was still under way.
        self._made(video, made)
        return []

    def _made(self, video: VideoRecord, refreshes: int) -> None:
        """So many refreshes are on the disk; the one that is wanted may be among them."""
        video.refreshes_done = max(video.refreshes_done, refreshes)
        if video.wanted is not None and video.wanted < video.refreshes_done:
            video.wanted, video.blocked = None, False

    def _work_failed(self, video: VideoRecord, report: WorkFailed, now_s: float) -> list[Command]:
        if report.blameless:
            return []
        video.failures += 1
        if report.retry and video.failures <= self._max_failures:
            return []
        return self._end(video, Phase.FAILED, report.error, now_s)

    def _wished(self, wish: Wish, now_s: float) -> list[Command]:
        video = self.videos.get(wish.video)
        if video is None or video.ended is not None:
            return []
        self._leave_lines(video)
        commands: list[Command] = []
        if isinstance(wish, Reprioritized):
            video.priority = wish.priority
        elif isinstance(wish, Resumed):
            video.paused = False
        else:
            video.paused = isinstance(wish, Paused)
            commands = [command for piece in video.under_way.values() for command in self._stop(piece, video.name)]
        if isinstance(wish, Cancelled):
            commands += self._end(video, Phase.CANCELLED, "cancelled", now_s)
        self._queue(video)
        return commands

    def _end(self, video: VideoRecord, phase: Phase, error: str | None, now_s: float) -> list[Command]:
        video.ended, video.error, video.finished_s = phase, error, now_s
        self._num_ended += 1
        return [Finish(video.name, error)]

    # ---------------------------------------------------------------------------- placement

    def _queue(self, video: VideoRecord) -> None:
        for role, line in self._lines.items():
            if video.waits_for(role):
                line.add(video)

    def _leave_lines(self, video: VideoRecord) -> None:
        """Before the video changes: lines remember it as it was when it joined them."""
        for line in self._lines.values():
            line.discard(video)

    def _place(self, now_s: float) -> list[Command]:
        """Gives every idle actor the video that the policy serves first."""
        commands: list[Command] = []
        for role, line in self._lines.items():
            idle = self._idle[role]
            while len(idle) > 0 and len(line) > 0:
                video = line.take()
                commands.append(self._begin(video, idle.take(video.last_field_actor), now_s))
        return commands

    def _begin(self, video: VideoRecord, actor: ActorRecord, now_s: float) -> Command:
        piece = Piece(actor.role, actor.number, video.ticket, now_s)
        video.under_way[actor.role], actor.video = piece, video.name
        video.ticket += 1
        if actor.role is Role.REFRESH:
            self._at_refresh[actor.number] = None
            return StartRefresh(video.name, actor.number, piece.ticket)
        video.last_field_actor = actor.number
        return StartSlice(video.name, actor.number, piece.ticket)

    def _foresee(self) -> list[Command]:
        """Of the videos that wait for the diffusion model the first, to the actor that will probably be free first."""
        line = self._lines[Role.REFRESH]
        if len(line) == 0 or not self._at_refresh or line.first().name == self._foreseen:
            return []
        self._foreseen = line.first().name
        return [Prefetch(self._foreseen, next(iter(self._at_refresh)))]
