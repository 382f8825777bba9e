"""What the joint optimisation of many videos does next: events in, commands out. No I/O, no clock, no Ray, no torch.

A video alternates slices of field steps with diffusion passes:

    PENDING --StartSlice--> OPTIMISING --SliceDone--> PENDING | REFRESH_WANTED | DONE
    REFRESH_WANTED --StartRefresh--> REFRESHING --RefreshDone--> PENDING
    OPTIMISING, REFRESHING --WorkFailed--> where it came from | FAILED

Every piece of work carries a ticket. An event whose ticket is not the video's current one comes from work that was given up,
and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable


class Phase(Enum):
    PENDING = "pending"
    """Waits for a field worker."""
    OPTIMISING = "optimising"
    REFRESH_WANTED = "refresh wanted"
    """Waits for the diffusion model."""
    REFRESHING = "refreshing"
    DONE = "done"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        return self in (Phase.DONE, Phase.FAILED)


class Role(Enum):  # what an actor does
    FIELD = "field"
    REFRESH = "refresh"


WAITS_FOR = {Role.FIELD: Phase.PENDING, Role.REFRESH: Phase.REFRESH_WANTED}
WORKS_IN = {Role.FIELD: Phase.OPTIMISING, Role.REFRESH: Phase.REFRESHING}


@dataclass(frozen=True)
class VideoWork:
    """How much there is to do for one video, as its settings say."""

    warm_up_steps: int
    steps: int
    """Of Algorithm 1, after the warm-up."""
    refresh_interval: int
    num_refreshes: int
    """The first pass included."""


@dataclass
class VideoRecord:
    """What the scheduler knows of one video. Only `Scheduler` changes it; policies read it."""

    name: str
    order: int
    """Place in the order of submission."""
    work: VideoWork
    num_frames: int = 1
    """The cost of one refresh, in frames; known after the first slice."""
    phase: Phase = Phase.PENDING
    steps_done: int = 0
    """Field steps so far, those of the warm-up included."""
    refreshes_done: int = 0
    failures: int = 0
    ticket: int = 0
    actor: int | None = None
    last_field_actor: int | None = None
    """The field actor that may still hold the video's state in memory."""
    error: str | None = None
    submitted_s: float = 0.0
    finished_s: float | None = None

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


# --------------------------------------------------------------------------------------- events


@dataclass(frozen=True)
class Submitted:
    name: str
    work: VideoWork


@dataclass(frozen=True)
class ActorReady:
    number: int
    role: Role


@dataclass(frozen=True)
class SliceDone:
    video: str
    ticket: int
    steps_done: int
    refreshes_done: int
    num_frames: int
    refresh_wanted: bool
    finished: bool


@dataclass(frozen=True)
class RefreshDone:
    video: str
    ticket: int
    refreshes_done: int


@dataclass(frozen=True)
class WorkFailed:
    """Work ended in an exception, or with the death of its actor."""

    video: str
    ticket: int
    error: str
    retry: bool
    """False for a user's mistake: trying again cannot help."""
    actor_lost: bool


Report = SliceDone | RefreshDone | WorkFailed
"""How a piece of work ended."""
Event = Submitted | ActorReady | Report

# ------------------------------------------------------------------------------------- commands


@dataclass(frozen=True)
class StartSlice:
    video: str
    actor: int
    ticket: int


@dataclass(frozen=True)
class StartRefresh:
    video: str
    actor: int
    ticket: int


@dataclass(frozen=True)
class ReplaceActor:
    """Start a new process in the place of a dead one; answer with ActorReady."""

    number: int
    role: Role


@dataclass(frozen=True)
class Finish:
    """A video has ended, well or not."""

    video: str
    error: str | None


Command = StartSlice | StartRefresh | ReplaceActor | Finish


@runtime_checkable
class Policy(Protocol):
    """Who is served first: the video with the smallest key."""

    def slice_key(self, video: VideoRecord) -> tuple[float, ...]: ...

    def refresh_key(self, video: VideoRecord) -> tuple[float, ...]: ...


TRANSITIONS: dict[tuple[Phase, type[Report]], frozenset[Phase]] = {
    (Phase.OPTIMISING, SliceDone): frozenset({Phase.PENDING, Phase.REFRESH_WANTED, Phase.DONE}),
    (Phase.OPTIMISING, WorkFailed): frozenset({Phase.PENDING, Phase.FAILED}),
    (Phase.REFRESHING, RefreshDone): frozenset({Phase.PENDING}),
    (Phase.REFRESHING, WorkFailed): frozenset({Phase.REFRESH_WANTED, Phase.FAILED}),
}
"""Where a report takes a video at work; placement does the rest (PENDING -> OPTIMISING, REFRESH_WANTED -> REFRESHING)."""


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
        before = video.phase
        if report.ticket != video.ticket or (before, type(report)) not in TRANSITIONS:
            return []
        actor = self._release(video)
        if isinstance(report, SliceDone):
            commands = self._slice_done(video, report, now_s)
        elif isinstance(report, RefreshDone):
            video.refreshes_done, video.phase = report.refreshes_done, Phase.PENDING
            commands = []
        else:
            commands = self._work_failed(video, actor, report, now_s)
        assert video.phase in TRANSITIONS[before, type(report)], (before, report, video.phase)
        return commands

    def _slice_done(self, video: VideoRecord, report: SliceDone, now_s: float) -> list[Command]:
        video.steps_done, video.refreshes_done, video.num_frames = report.steps_done, report.refreshes_done, report.num_frames
        if report.finished:
            return self._end(video, Phase.DONE, None, now_s)
        video.phase = Phase.REFRESH_WANTED if report.refresh_wanted else Phase.PENDING
        return []

    def _work_failed(self, video: VideoRecord, actor: ActorRecord, report: WorkFailed, now_s: float) -> list[Command]:
        commands: list[Command] = []
        if report.actor_lost:
            del self.actors[actor.number]
            commands.append(ReplaceActor(actor.number, actor.role))
        video.failures += 1
        if report.retry and video.failures <= self.max_failures:
            video.phase = WAITS_FOR[actor.role]
            return commands
        return commands + self._end(video, Phase.FAILED, report.error, now_s)

    def _end(self, video: VideoRecord, phase: Phase, error: str | None, now_s: float) -> list[Command]:
        video.phase, video.error, video.finished_s = phase, error, now_s
        return [Finish(video.name, error)]

    def _release(self, video: VideoRecord) -> ActorRecord:
        """Ends the video's current piece of work; its ticket is void from now on."""
        assert video.actor is not None
        actor = self.actors[video.actor]
        actor.video = video.actor = None
        video.ticket += 1
        return actor

    # ---------------------------------------------------------------------------- placement

    def _place(self) -> list[Command]:
        """Gives every idle actor the video that the policy serves first."""
        return [self._begin(video, actor) for role in Role for video, actor in self._matches(role)]

    def _matches(self, role: Role) -> Iterable[tuple[VideoRecord, ActorRecord]]:
        idle = sorted((a for a in self.actors.values() if a.role is role and a.video is None), key=lambda a: a.number)
        key = self.policy.slice_key if role is Role.FIELD else self.policy.refresh_key
        waiting = sorted((v for v in self.videos.values() if v.phase is WAITS_FOR[role]), key=lambda v: (key(v), v.order))
        for video in waiting[: len(idle)]:
            warm = next((actor for actor in idle if actor.number == video.last_field_actor), idle[0])
            idle.remove(warm)
            yield video, warm

    def _begin(self, video: VideoRecord, actor: ActorRecord) -> Command:
        video.phase, video.actor, actor.video = WORKS_IN[actor.role], actor.number, video.name
        if actor.role is Role.REFRESH:
            return StartRefresh(video.name, actor.number, video.ticket)
        video.last_field_actor = actor.number
        return StartSlice(video.name, actor.number, video.ticket)
