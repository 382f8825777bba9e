"""What the joint optimisation of many videos does next: events in, commands out. No I/O, no clock, no Ray, no torch.

A video alternates slices of field steps with diffusion passes:

    PENDING --StartSlice--> OPTIMISING --SliceDone--> PENDING | REFRESH_WANTED | DONE
    REFRESH_WANTED --StartRefresh--> REFRESHING --RefreshDone--> PENDING
    OPTIMISING, REFRESHING --WorkFailed--> where it came from | FAILED

Where refreshes overlap (joint.refresh_overlap), a video that is PENDING or OPTIMISING may have a refresh waiting or running beside it; only
when its steps are blocked it is REFRESH_WANTED or REFRESHING.

Every piece of work carries a ticket. An event whose ticket is of no piece under way comes from work that was given up, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable

from dpscale.scheduler.messages import (
    ActorReady,
    Command,
    Event,
    Finish,
    RefreshDone,
    ReplaceActor,
    Report,
    Role,
    SliceDone,
    StartRefresh,
    StartSlice,
    Submitted,
    VideoWork,
    WorkFailed,
)


class Phase(Enum):
    PENDING = "pending"
    """Waits for a field worker."""
    OPTIMISING = "optimising"
    REFRESH_WANTED = "refresh wanted"
    """Waits for the diffusion model, and no step can be taken."""
    REFRESHING = "refreshing"
    DONE = "done"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        return self in (Phase.DONE, Phase.FAILED)


@dataclass(frozen=True)
class Piece:
    """A piece of work under way."""

    role: Role
    actor: int
    ticket: int


@dataclass
class VideoRecord:
    """What the scheduler knows of one video. Only `Scheduler` changes it; policies read it."""

    name: str
    order: int
    """Place in the order of submission."""
    work: VideoWork
    num_frames: int = 1
    """The cost of one refresh, in frames; known after the first slice."""
    steps_done: int = 0
    """Field steps so far, those of the warm-up included."""
    refreshes_done: int = 0
    wanted: int | None = None
    """Number of the refresh that was asked for and is not made; the first pass is 0."""
    blocked: bool = False
    """No step can be taken before it is made."""
    under_way: dict[Role, Piece] = field(default_factory=dict[Role, Piece])
    failures: int = 0
    ticket: int = 0
    """Of the next piece of work."""
    last_field_actor: int | None = None
    """The field actor that may still hold the video's state in memory."""
    ended: Phase | None = None
    """DONE, FAILED, or not yet."""
    error: str | None = None
    submitted_s: float = 0.0
    finished_s: float | None = None

    @property
    def phase(self) -> Phase:
        if self.ended is not None:
            return self.ended
        if Role.FIELD in self.under_way:
            return Phase.OPTIMISING
        if not self.blocked:
            return Phase.PENDING
        return Phase.REFRESHING if Role.REFRESH in self.under_way else Phase.REFRESH_WANTED

    def waits_for(self, role: Role) -> bool:
        """Whether an actor of that role could go on with it now."""
        if self.ended is not None or role in self.under_way:
            return False
        return not self.blocked if role is Role.FIELD else self.wanted is not None

    @property
    def refreshes_left(self) -> int:
        return self.work.num_refreshes - self.refreshes_done

    @property
    def steps_left(self) -> int:
        return self.work.warm_up_steps + self.work.steps - self.steps_done


@dataclass
class ActorRecord:
    number: int
    role: Role
    video: str | None = None
    """What it works on."""


@runtime_checkable
class Policy(Protocol):
    """Who is served first: the video with the smallest key."""

    def slice_key(self, video: VideoRecord) -> tuple[float, ...]: ...

    def refresh_key(self, video: VideoRecord) -> tuple[float, ...]: ...


_REPORTS: dict[Role, type[SliceDone] | type[RefreshDone]] = {Role.FIELD: SliceDone, Role.REFRESH: RefreshDone}
"""How a piece of work of each role ends well."""


@dataclass
class Scheduler:
    """All videos and actors of a run, and the rules by which they change."""

    policy: Policy
    max_failures: int
    videos: dict[str, VideoRecord] = field(default_factory=dict[str, VideoRecord])
    actors: dict[int, ActorRecord] = field(default_factory=dict[int, ActorRecord])

    @property
    def is_finished(self) -> bool:
        return all(video.phase.is_final for video in self.videos.values())

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Takes in what happened at `now_s` and says what to do. The commands are taken as begun."""
        if isinstance(event, Submitted):
            commands = self._submit(event, now_s)
        elif isinstance(event, ActorReady):
            self.actors[event.number] = ActorRecord(event.number, event.role)
            commands = []
        else:
            commands = self._take_report(event, now_s)
        return commands + self._place()

    # -------------------------------------------------------------------------- transitions

    def _submit(self, event: Submitted, now_s: float) -> list[Command]:
        if event.name in self.videos:
            raise ValueError(f"video {event.name!r} was submitted twice")
        self.videos[event.name] = VideoRecord(event.name, len(self.videos), event.work, submitted_s=now_s)
        return []

    def _take_report(self, report: Report, now_s: float) -> list[Command]:
        video = self.videos[report.video]
        piece = next((piece for piece in video.under_way.values() if piece.ticket == report.ticket), None)
        if piece is None or not isinstance(report, WorkFailed | _REPORTS[piece.role]):
            return []
        del video.under_way[piece.role]
        self.actors[piece.actor].video = None
        if isinstance(report, WorkFailed):
            return self._work_failed(video, piece, report, now_s)
        if video.ended is not None:
            return []
        if isinstance(report, SliceDone):
            return self._slice_done(video, report, now_s)
        self._made(video, report.refreshes_done)
        return []

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

    def _work_failed(self, video: VideoRecord, piece: Piece, report: WorkFailed, now_s: float) -> list[Command]:
        commands: list[Command] = []
        if report.actor_lost:
            del self.actors[piece.actor]
            commands.append(ReplaceActor(piece.actor, piece.role))
        if video.ended is not None:
            return commands
        video.failures += 1
        if report.retry and video.failures <= self.max_failures:
            return commands
        return commands + self._end(video, Phase.FAILED, report.error, now_s)

    def _end(self, video: VideoRecord, phase: Phase, error: str | None, now_s: float) -> list[Command]:
        video.ended, video.error, video.finished_s = phase, error, now_s
        return [Finish(video.name, error)]

    # ---------------------------------------------------------------------------- placement

    def _place(self) -> list[Command]:
        """Gives every idle actor the video that the policy serves first."""
        return [self._begin(video, actor) for role in Role for video, actor in self._matches(role)]

    def _matches(self, role: Role) -> Iterable[tuple[VideoRecord, ActorRecord]]:
        idle = sorted((a for a in self.actors.values() if a.role is role and a.video is None), key=lambda a: a.number)
        key = self.policy.slice_key if role is Role.FIELD else self.policy.refresh_key
        waiting = sorted((v for v in self.videos.values() if v.waits_for(role)), key=lambda v: (key(v), v.order))
        for video in waiting[: len(idle)]:
            warm = next((actor for actor in idle if actor.number == video.last_field_actor), idle[0])
            idle.remove(warm)
            yield video, warm

    def _begin(self, video: VideoRecord, actor: ActorRecord) -> Command:
        piece = Piece(actor.role, actor.number, video.ticket)
        video.under_way[actor.role], actor.video = piece, video.name
        video.ticket += 1
        if actor.role is Role.REFRESH:
            return StartRefresh(video.name, actor.number, piece.ticket)
        video.last_field_actor = actor.number
        return StartSlice(video.name, actor.number, piece.ticket)
