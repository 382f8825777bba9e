"""A journal as a Chrome trace: what every actor did when, to look at in Perfetto or chrome://tracing."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from dpscale.scheduler.journal import Segment
from dpscale.scheduler.messages import RefreshDone, RefreshStopped, Role, SliceDone, StartRefresh, StartSlice, WorkFailed
from dpscale.scheduler.state import Scheduler

_PROCESS = {Role.FIELD: 1, Role.REFRESH: 2}
_US = 1e6
_Begun = tuple[float, StartSlice | StartRefresh, int]
"""When, what, and in which row."""


def trace(segments: list[Segment]) -> dict[str, Any]:
    """In the Trace Event Format: a row for each actor, a bar for each slice and refresh, counters of what waits. Refreshes
    that an actor makes together have rows of their own, as bars of one row must not overlap."""
    names = [{"ph": "M", "name": "process_name", "pid": pid, "args": {"name": f"{role.value} workers"}} for role, pid in _PROCESS.items()]
    return {"traceEvents": [*names, *(event for segment in segments for event in _bars(segment))], "displayTimeUnit": "ms"}


def _bars(segment: Segment) -> Iterator[dict[str, Any]]:
    begun: dict[tuple[str, int], _Begun] = {}
    together = segment.opening.settings.refresh_together
    for at, event, commands, scheduler in segment.replay():
        if isinstance(event, SliceDone | RefreshDone | RefreshStopped | WorkFailed) and (event.video, event.ticket) in begun:
            started, start, row = begun.pop((event.video, event.ticket))
            role = Role.FIELD if isinstance(start, StartSlice) else Role.REFRESH
            yield {
                "ph": "X", "name": start.video, "cat": type(event).__name__, "pid": _PROCESS[role], "tid": row,
                "ts": started * _US, "dur": (at - started) * _US, "args": _arguments(event, scheduler),
            }  # fmt: skip
        for command in commands:
            if isinstance(command, StartSlice | StartRefresh):
                begun[command.video, command.ticket] = (at, command, _row(command, begun.values(), together))
        waiting = {role.value: scheduler.num_waiting(role) for role in Role}
        yield {"ph": "C", "name": "waiting videos", "pid": _PROCESS[Role.FIELD], "ts": at * _US, "args": waiting}


def _row(start: StartSlice | StartRefresh, begun: Collection[_Begun], together: int) -> int:
    """The first of the actor's `together` rows that is free; work that was given up without a word may hold them all."""
    rows = range(start.actor * together, (start.actor + 1) * together)
    taken = {row for _, other, row in begun if other.actor == start.actor} if together > 1 else set[int]()
    return next((row for row in rows if row not in taken), rows[0])


def _arguments(event: SliceDone | RefreshDone | RefreshStopped | WorkFailed, scheduler: Scheduler) -> dict[str, Any]:
    video = scheduler.videos[event.video]
    known = {"steps_done": video.steps_done, "refreshes_done": video.refreshes_done, "tenant": video.tenant}
    return known | ({"error": event.error} if isinstance(event, WorkFailed) else {})
