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

from collections.abc import Callable
from typing import Any

from dpscale.scheduler.companions import Companions
from dpscale.scheduler.crew import Crew
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


class Scheduler:
    """All videos and actors of a run, and the rules by which they change.

    `lines` say who is served first (policy.make_policy). A video that fails more than `max_failures` times is given up; work that is under way
    for longer than `stall_s` counts as a failure, and its actor as lost. Idle actors change their role every `rebalance_s`, or all are `mixed`
    (crew.Crew). At most `together` videos of one performer are refreshed by an actor at once (companions.Companions)."""

    def __init__(
        self,
        lines: Lines,
        max_failures: int,
        stall_s: float | None = None,
        rebalance_s: float | None = None,
        together: int = 1,
        mixed: bool = False,
    ) -> None:
        self._lines, self._max_failures, self._stall_s = lines, max_failures, stall_s
        self._crew, self._companions = Crew(rebalance_s, mixed), Companions(together)
        self._foreseen: str | None = None
        """The video that was prefetched last."""
        self._num_ended = 0
        self.videos: dict[str, VideoRecord] = {}
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
    def actors(self) -> dict[int, ActorRecord]:
        return self._crew.actors

    def num_actors(self, role: Role) -> int:
        """That do the work of a role."""
        return self._crew.num_serving(role)

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
        self._crew.joined(event)
        return []

    def _node_draining(self, event: NodeDraining, now_s: float) -> list[Command]:
        """Idle actors go at once. Slices end soon by themselves; a refresh is told to stop."""
        commands: list[Command] = []
        for actor in self._crew.leaving(event.node):
            commands += [] if actor.videos else [self._crew.replace(actor)]
            for video in actor.videos.values():
                piece = video.piece_at(actor.number)
                if piece.role is Role.REFRESH:
                    self._companions.changed(actor, video)
                    commands += self._stop(piece, video.name)
        return commands

    def _tick(self, event: Tick, now_s: float) -> list[Command]:
        return [*self._give_up_hung(now_s), *self._crew.rebalance(self._lines, now_s)]

    def _give_up_hung(self, now_s: float) -> list[Command]:
        if self._stall_s is None:
            return []
        commands: list[Command] = []
        at_work = [(video, video.piece_at(actor.number)) for actor in self.actors.values() for video in actor.videos.values()]
        for video, piece in at_work:
            if now_s - piece.started_s > self._stall_s:
                error = f"nothing was heard for {now_s - piece.started_s:.0f} s (scheduler.stall_s)"
                commands += self._reported(WorkFailed(video.name, piece.ticket, error, retry=True, actor_lost=True), now_s)
        return commands

    def _release(self, piece: Piece, video: VideoRecord, lost: bool) -> list[Command]:
        actor = self.actors.get(piece.actor)
        if actor is None:  # replaced, with all that it was at
            return []
        commands = self._crew.ended(actor.number, video.name, lost)
        if piece.role is Role.REFRESH:
            self._companions.changed(actor, video)
        return [*commands]

    def _stop(self, piece: Piece, video: str) -> list[Command]:
        return [StopRefresh(video, piece.actor, piece.ticket)] if piece.role is Role.REFRESH else []

    # ------------------------------------------------------------------------------- videos

    def _submitted(self, event: Submitted, now_s: float) -> list[Command]:
        if event.video in self.videos:
            raise ValueError(f"video {event.video!r} was submitted twice")
        order = len(self.videos)
        video = VideoRecord(event.video, order, event.work, event.num_frames, event.tenant, event.priority, event.deadline_s, event.performer)
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
        commands = self._release(piece, video, isinstance(report, WorkFailed) and report.actor_lost)
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
        if video.waits_for(Role.REFRESH):
            self._companions.waits(video)

    def _leave_lines(self, video: VideoRecord) -> None:
        """Before the video changes: lines remember it as it was when it joined them."""
        for line in self._lines.values():
            line.discard(video)
        self._companions.waits_no_more(video)

    def _place(self, now_s: float) -> list[Command]:
        """Gives every idle actor the video that the policy serves first, and those who may go with it. Where nobody is idle, the first video
        may still join an actor; it is never passed over for one that could, so that no performer keeps an actor for ever."""
        commands: list[Command] = []
        while (role := self._next_role()) is not None:
            line = self._lines[role]
            video = line.take()
            actor = self._crew.take(role, video.last_field_actor)
            commands.append(self._begin(video, actor, role, now_s))
            others = self._companions.of(video) if role is Role.REFRESH else []
            commands += [self._begin(line.take(other), actor, role, now_s) for other in others]
        refreshes = self._lines[Role.REFRESH]
        while len(refreshes) > 0 and (host := self._companions.host(refreshes.first())) is not None:
            commands.append(self._begin(refreshes.take(), host, Role.REFRESH, now_s))
        return commands

    def _next_role(self) -> Role | None:
        """Of which a video waits and an actor is idle. Where actors do the work of both: higher priority first, then refreshes, for field steps
        are short and fill gaps better."""
        ready = [role for role, line in self._lines.items() if self._crew.is_idle(role) and len(line) > 0]
        if len(ready) < 2 or not self._crew.mixed:
            return ready[0] if ready else None
        return max(ready, key=lambda role: (self._lines[role].first().priority, role is Role.REFRESH))

    def _begin(self, video: VideoRecord, actor: ActorRecord, role: Role, now_s: float) -> Command:
        piece = Piece(role, actor.number, video.ticket, now_s)
        video.under_way[role] = piece
        video.ticket += 1
        self._crew.began(actor, video, role)
        if role is Role.REFRESH:
            self._companions.waits_no_more(video)
            self._companions.changed(actor, video)
            return StartRefresh(video.name, actor.number, piece.ticket)
        video.last_field_actor = actor.number
        return StartSlice(video.name, actor.number, piece.ticket)

    def _foresee(self) -> list[Command]:
        """Of the videos that wait for the diffusion model the first, to the actor that will probably be free first."""
        line, soon_free = self._lines[Role.REFRESH], self._crew.longest_at_refresh()
        if len(line) == 0 or soon_free is None or line.first().name == self._foreseen:
            return []
        self._foreseen = line.first().name
        return [Prefetch(self._foreseen, soon_free)]
