"""Service times of a run, from its journal: what a simulation of more videos on more machines is fed with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from dpscale.scheduler.journal import Segment
from dpscale.scheduler.messages import ActorReady, RefreshDone, SliceDone, StartRefresh, StartSlice
from dpscale.scheduler.simulation import ServiceTimes, WarmVideos


@dataclass(frozen=True)
class _Slice:
    steps: int
    seconds: float
    is_cold: bool
    """Its worker had another video, or none, or this one before somebody else."""
    finished: bool


def measured_times(segments: Sequence[Segment]) -> ServiceTimes:
    """Of all slices and passes that ended well; a pass of full strength is what the first pass of each video took, whatever it prepared
    included. Raises ValueError where the journal holds no slice of steps or no first pass."""
    slices, first_passes = [], []
    for segment in segments:
        for piece in _pieces(segment):
            (slices if isinstance(piece, _Slice) else first_passes).append(piece)
    warm = [one for one in slices if one.steps and not one.is_cold and not one.finished]
    if not warm or not first_passes:
        raise ValueError("the journal holds too little: no slice on a worker that held its video, or no first pass")
    step_s, slice_s = _line([one.steps for one in warm], [one.seconds for one in warm])
    cold = [one.seconds - one.steps * step_s - slice_s for one in slices if one.is_cold and not one.finished]
    results = [one.seconds for one in slices if one.finished and not one.steps and not one.is_cold]
    return ServiceTimes(
        field_step_s=step_s, slice_s=slice_s, load_s=max(0.0, fmean(cold)) if cold else 0.0,
        refresh_frame_s=fmean(first_passes), refresh_s=0.0, result_s=fmean(results) if results else 0.0,
    )  # fmt: skip


def _line(steps: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Least squares of seconds = step_s * steps + slice_s, neither below zero."""
    if len(set(steps)) > 1:
        step_s, slice_s = (float(value) for value in np.polyfit(steps, seconds, 1))
        if step_s > 0 and slice_s >= 0:
            return step_s, slice_s
    return sum(seconds) / sum(steps), 0.0


def _pieces(segment: Segment) -> Iterator[_Slice | float]:
    """Slices, and seconds a frame of first passes."""
    begun: dict[tuple[str, int], tuple[float, StartSlice | StartRefresh]] = {}
    steps: dict[str, int] = {}
    held = WarmVideos(segment.opening.settings.warm_videos)
    for at, event, commands, scheduler in segment.replay():
        if isinstance(event, ActorReady):
            held.forget(event.number)
        elif isinstance(event, SliceDone | RefreshDone) and (event.video, event.ticket) in begun:
            started, start = begun.pop((event.video, event.ticket))
            if isinstance(event, SliceDone):
                taken = event.steps_done - steps.get(event.video, 0)
                yield _Slice(taken, at - started, not held.take(event.video, start.actor), event.finished)
                steps[event.video] = event.steps_done
            elif event.refreshes_done == 1:
                yield (at - started) / scheduler.videos[event.video].num_frames
        begun |= {(command.video, command.ticket): (at, command) for command in commands if isinstance(command, StartSlice | StartRefresh)}
