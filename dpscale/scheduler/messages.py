"""What the scheduler is told and what it says: events in, commands out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Role(Enum):  # what an actor does
    FIELD = "field"
    REFRESH = "refresh"


@dataclass(frozen=True)
class VideoWork:
    """How much there is to do for one video, as its settings say."""

    warm_up_steps: int
    steps: int
    """Of Algorithm 1, after the warm-up."""
    refresh_interval: int
    num_refreshes: int
    """The first pass included."""


# --------------------------------------------------------------------------------------- events


@dataclass(frozen=True)
class Submitted:
    video: str
    work: VideoWork
    num_frames: int = 1
    """The cost of one refresh, in frames; slices tell it too."""
    tenant: str = "default"
    priority: int = 0
    """Larger is served earlier among a tenant's videos."""
    deadline_s: float | None = None
    """When it ought to be ready, on the clock of `now_s`; decides among videos of equal priority."""
    failures: int = 0
    """That it had under an earlier driver."""
    performer: str = ""
    """Whose weights its refreshes need."""


@dataclass(frozen=True)
class ActorReady:
    number: int
    role: Role
    node: str = ""


@dataclass(frozen=True)
class NodeDraining:
    """A node will go soon: its actors begin nothing new, and what they do is brought to a checkpoint."""

    node: str


@dataclass(frozen=True)
class SliceDone:
    video: str
    ticket: int
    steps_done: int
    refreshes_done: int
    num_frames: int
    refresh_wanted: bool
    """The refresh after `refreshes_done` has been asked for."""
    steps_blocked: bool
    """No step can be taken before it is there."""
    finished: bool


@dataclass(frozen=True)
class RefreshDone:
    video: str
    ticket: int
    refreshes_done: int


@dataclass(frozen=True)
class RefreshStopped:
    """It was told to stop and left its progress on the disk."""

    video: str
    ticket: int


@dataclass(frozen=True)
class WorkFailed:
    """Work ended in an exception, or with the death of its actor."""

    video: str
    ticket: int
    error: str
    retry: bool
    """False for a user's mistake: trying again cannot help."""
    actor_lost: bool
    blameless: bool = False
    """The machine was taken away: it does not count against the video."""


@dataclass(frozen=True)
class Cancelled:
    video: str


@dataclass(frozen=True)
class Paused:
    """Work under way is brought to a checkpoint, and nothing new begins until Resumed."""

    video: str


@dataclass(frozen=True)
class Resumed:
    video: str


@dataclass(frozen=True)
class Reprioritized:
    video: str
    priority: int


@dataclass(frozen=True)
class Tick:
    """Time has passed: work that has been under way for too long is given up, actors that have been idle for long may change their role."""


Report = SliceDone | RefreshDone | RefreshStopped | WorkFailed
"""How a piece of work ended."""
Wish = Cancelled | Paused | Resumed | Reprioritized
"""What a person wants of a video; changes nothing when it has ended."""
Event = Submitted | ActorReady | NodeDraining | Tick | Report | Wish

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
class StopRefresh:
    """At its next window-step; answer with its report, whatever it is by then."""

    video: str
    actor: int
    ticket: int


@dataclass(frozen=True)
class Prefetch:
    """The actor will probably refresh this video next: read its performer's weights meanwhile. Nothing depends on it."""

    video: str
    actor: int


@dataclass(frozen=True)
class ReplaceActor:
    """Start a new process, of this role, in the place of one that is dead, hangs or has to go; answer with ActorReady."""

    number: int
    role: Role


@dataclass(frozen=True)
class Finish:
    """A video has ended, well or not."""

    video: str
    error: str | None


Command = StartSlice | StartRefresh | StopRefresh | Prefetch | ReplaceActor | Finish
