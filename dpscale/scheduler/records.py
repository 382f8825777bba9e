"""What the scheduler knows of videos and actors. Only `state.Scheduler` changes it; policies read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from dpscale.scheduler.messages import Role, VideoWork


class Phase(Enum):
    PENDING = "pending"
    """Waits for a field worker."""
    OPTIMISING = "optimising"
    REFRESH_WANTED = "refresh wanted"
    """Waits for the diffusion model, and no step can be taken."""
    REFRESHING = "refreshing"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in (Phase.DONE, Phase.FAILED, Phase.CANCELLED)


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of work under way."""

    role: Role
    actor: int
    ticket: int
    started_s: float


@dataclass(slots=True)
class VideoRecord:
    name: str
    order: int
    """Place in the order of submission."""
    work: VideoWork
    num_frames: int = 1
    """The cost of one refresh, in frames."""
    tenant: str = "default"
    priority: int = 0
    deadline_s: float | None = None
    performer: str = ""
    """Whose weights its refreshes need."""
    steps_done: int = 0
    """Field steps so far, those of the warm-up included."""
    refreshes_done: int = 0
    wanted: int | None = None
    """Number of the refresh that was asked for and is not made; the first pass is 0."""
    blocked: bool = False
    """No step can be taken before it is made."""
    paused: bool = False
    under_way: dict[Role, Piece] = field(default_factory=dict[Role, Piece])
    failures: int = 0
    ticket: int = 0
    """Of the next piece of work."""
    last_field_actor: int | None = None
    """The field actor that may still hold the video's state in memory."""
    ended: Phase | None = None
    """One of the final phases, or not yet."""
    error: str | None = None
    submitted_s: float = 0.0
    finished_s: float | None = None

    @property
    def phase(self) -> Phase:
        if self.ended is not None:
            return self.ended
        if Role.FIELD in self.under_way:
            return Phase.OPTIMISING
        if self.blocked and Role.REFRESH in self.under_way:
            return Phase.REFRESHING
        if self.paused:
            return Phase.PAUSED
        return Phase.REFRESH_WANTED if self.blocked else Phase.PENDING

    def piece_at(self, actor: int) -> Piece:
        """The work on it that is under way there. Raises StopIteration where there is none."""
        return next(piece for piece in self.under_way.values() if piece.actor == actor)

    def waits_for(self, role: Role) -> bool:
        """Whether an actor of that role could go on with it now."""
        if self.ended is not None or self.paused or role in self.under_way:
            return False
        return not self.blocked if role is Role.FIELD else self.wanted is not None

    @property
    def refreshes_left(self) -> int:
        return self.work.num_refreshes - self.refreshes_done

    @property
    def steps_left(self) -> int:
        return self.work.warm_up_steps + self.work.steps - self.steps_done

    @property
    def steps_to_refresh(self) -> int:
        """Field steps until the next refresh falls due; the first pass follows the warm-up."""
        due = self.work.warm_up_steps + min(self.refreshes_done * self.work.refresh_interval, self.work.steps)
        return max(0, due - self.steps_done)

    @property
    def diffusion_work_left(self) -> int:
        """Frames that the diffusion model has still to make."""
        return self.refreshes_left * self.num_frames


@dataclass(slots=True)
class ActorRecord:
    number: int
    role: Role
    node: str = ""
    videos: dict[str, VideoRecord] = field(default_factory=dict[str, VideoRecord])
    """What it works on: at most one, or several of one performer that it refreshes together."""
    leaving: bool = False
    """Its node goes: it is replaced as soon as it is idle."""
