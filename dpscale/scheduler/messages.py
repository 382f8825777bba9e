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
