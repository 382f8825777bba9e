"""A cluster in simulated time under the real scheduler: what many videos on many GPUs would take. No Ray, no torch.

Durations follow from measured service times (`ServiceTimes`); machines fail and spot machines are taken away at given rates. The same seed
gives the same course, event by event."""

from __future__ import annotations

import heapq
import random
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dpscale.scheduler.messages import (
    ActorReady,
    Command,
    Event,
    NodeDraining,
    RefreshDone,
    RefreshStopped,
    ReplaceActor,
    Role,
    SliceDone,
    StartRefresh,
    StartSlice,
    StopRefresh,
    Submitted,
    Tick,
    VideoWork,
    WorkFailed,
)
from dpscale.scheduler.state import Scheduler

HOUR_S = 3600.0


@dataclass(frozen=True)
class ServiceTimes:
    """Seconds that work takes, as measured."""

    field_step_s: float
    slice_s: float
    """Of every slice beside its steps: the checkpoint."""
    load_s: float
    """Of a slice whose worker does not hold the video's state."""
    refresh_frame_s: float
    """Of a pass of full strength, a frame."""
    refresh_s: float
    """Of every pass beside its frames: the performer's weights, the conditions."""
    result_s: float = 0.0
    """Of the slice that commits the finished video."""


@dataclass(frozen=True)
class Job:
    """One video to make."""

    name: str
    work: VideoWork
    num_frames: int
    strengths: tuple[float, ...] = ()
    """Of each refresh, the first pass included; () is full strength."""
    tenant: str = "default"
    priority: int = 0

    def strength(self, refresh: int) -> float:
        return self.strengths[refresh] if self.strengths else 1.0


@dataclass(frozen=True)
class Cluster:
    """Actors, one on each GPU, and what happens to them."""

    num_field: int
    num_refresh: int
    gpus_per_node: int = 8
    failures_per_hour: float = 0.0
    """Of one working actor: its process dies."""
    preemptions_per_hour: float = 0.0
    """Of one node: it is announced, and the node goes after `notice_s`."""
    notice_s: float = 120.0
    restart_s: float = 30.0
    """Until a new process is ready on the same node."""
    new_node_s: float = 300.0
    """Until an actor of a node that went is ready elsewhere."""
    window_step_s: float = 1.0
    """Until a refresh that is told to stop has stopped."""
    warm_videos: int = 2
    """Videos whose state a field worker keeps in memory."""
    tick_s: float = 5.0


@dataclass
class Course:
    """What happened."""

    makespan_s: float = 0.0
    busy_s: dict[Role, float] = field(default_factory=lambda: dict.fromkeys(Role, 0.0))
    """Of all actors, lost work included."""
    lost_s: float = 0.0
    """Work that a failure threw away."""
    num_failures: int = 0
    num_preemptions: int = 0
    served: list[tuple[float, str, float]] = field(default_factory=list)
    """(end of a piece, tenant, seconds of it)."""
    events: list[tuple[float, Event]] = field(default_factory=list)
    """Everything that the scheduler was told, with its time."""


def chain_s(job: Job, times: ServiceTimes, slice_steps: int) -> float:
    """Time that one video takes alone on idle machines: its slices and passes follow each other."""
    return field_s(job, times, slice_steps) + refresh_s(job, times)


def field_s(job: Job, times: ServiceTimes, slice_steps: int) -> float:
    """A worker's time for all slices of a video that stays in its memory."""
    num_slices = sum(-(-stretch // slice_steps) for stretch in _stretches(job.work))
    steps = job.work.warm_up_steps + job.work.steps
    return steps * times.field_step_s + num_slices * times.slice_s + times.load_s + times.result_s


def refresh_s(job: Job, times: ServiceTimes) -> float:
    """The diffusion model's time for all passes of a video."""
    strengths = sum(job.strength(refresh) for refresh in range(job.work.num_refreshes))
    return strengths * job.num_frames * times.refresh_frame_s + job.work.num_refreshes * times.refresh_s


def _stretches(work: VideoWork) -> Iterator[int]:
    """Field steps from one refresh to the next."""
    yield work.warm_up_steps
    for begin in range(0, work.steps, work.refresh_interval):
        yield min(work.refresh_interval, work.steps - begin)


class WarmVideos:
    """Which videos field workers hold in memory: each the last `most` that it served, and of a video only who served it last holds the newest
    state (joint.on_ray)."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[int, OrderedDict[str, None]] = {}
        self._newest: dict[str, int] = {}

    def take(self, video: str, actor: int) -> bool:
        """Whether the actor holds the video's newest state; it does from now on."""
        held = self._held.setdefault(actor, OrderedDict())
        warm = video in held and self._newest[video] == actor
        self._newest[video] = actor
        held[video] = None
        held.move_to_end(video)
        if len(held) > self._most:
            held.popitem(last=False)
        return warm

    def forget(self, actor: int) -> None:
        """A new process takes its place."""
        self._held.pop(actor, None)


class Simulation:
    """Runs `jobs` to their ends."""

    def __init__(self, scheduler: Scheduler, jobs: Sequence[Job], times: ServiceTimes, cluster: Cluster, slice_steps: int, seed: int) -> None:
        self._scheduler, self._times, self._cluster, self._slice_steps = scheduler, times, cluster, slice_steps
        self._jobs = {job.name: job for job in jobs}
        self._random = random.Random(seed)
        self._agenda: list[tuple[float, int, Event]] = []
        self._num_planned = 0
        self._now = 0.0
        self._begun: dict[tuple[str, int], tuple[float, float, StartSlice | StartRefresh]] = {}
        """(video, ticket) -> when it began, how long it takes, what it is."""
        self._refreshed: dict[str, float] = {}
        """Seconds of an unfinished pass that are on the disk."""
        self._nodes: dict[int, str] = {}
        """Of each actor."""
        self._gone: set[str] = set()
        """Nodes that are gone, or about to go."""
        self._held = WarmVideos(cluster.warm_videos)
        self.course = Course()

    def run(self) -> Course:
        for job in self._jobs.values():
            self._tell(Submitted(job.name, job.work, job.num_frames, job.tenant, job.priority))
        for number in range(self._cluster.num_field + self._cluster.num_refresh):
            self._ready(number, Role.FIELD if number < self._cluster.num_field else Role.REFRESH, f"node-{number // self._cluster.gpus_per_node}")
        self._plan(self._cluster.tick_s, Tick())
        while not self._scheduler.is_finished:
            self._now, _, event = heapq.heappop(self._agenda)
            self._happen(event)
        self.course.makespan_s = self._now
        return self.course

    # ------------------------------------------------------------------------------- events

    def _plan(self, delay_s: float, event: Event) -> None:
        self._num_planned += 1
        heapq.heappush(self._agenda, (self._now + delay_s, self._num_planned, event))

    def _tell(self, event: Event) -> None:
        self.course.events.append((self._now, event))
        for command in self._scheduler.handle(event, self._now):
            self._obey(command)

    def _happen(self, event: Event) -> None:
        if isinstance(event, ActorReady):
            self._ready(event.number, event.role, event.node)
        elif isinstance(event, NodeDraining):
            self._drain(event)
        elif isinstance(event, Tick):
            self._tell(event)
            self._plan(self._cluster.tick_s, event)
        elif isinstance(event, SliceDone | RefreshDone | RefreshStopped | WorkFailed):
            self._end(event)

    def _ready(self, number: int, role: Role, node: str) -> None:
        if self._cluster.preemptions_per_hour > 0 and node not in self._nodes.values():
            self._plan(self._random.expovariate(self._cluster.preemptions_per_hour / HOUR_S), NodeDraining(node))
        self._nodes[number] = node
        self._held.forget(number)
        self._tell(ActorReady(number, role, node))

    def _drain(self, event: NodeDraining) -> None:
        """The announcement; what is still at work when the notice is over is lost, without blame."""
        self.course.num_preemptions += 1
        self._gone.add(event.node)
        deadline = self._now + self._cluster.notice_s
        at_work = [start for began, seconds, start in self._begun.values() if self._nodes[start.actor] == event.node and began + seconds > deadline]
        self._tell(event)
        for start in at_work:
            lost = WorkFailed(start.video, start.ticket, "its node went", retry=True, actor_lost=True, blameless=True)
            self._plan(self._cluster.notice_s, lost)

    def _end(self, report: SliceDone | RefreshDone | RefreshStopped | WorkFailed) -> None:
        begun = self._begun.pop((report.video, report.ticket), None)
        if begun is None:  # it ended before in another way
            return
        began, _, start = begun
        seconds = self._now - began
        role = Role.FIELD if isinstance(start, StartSlice) else Role.REFRESH
        self.course.busy_s[role] += seconds
        self.course.served.append((self._now, self._jobs[report.video].tenant, seconds))
        if isinstance(report, WorkFailed):
            self.course.lost_s += seconds
            self.course.num_failures += 1
        elif isinstance(report, RefreshDone):
            self._refreshed.pop(report.video, None)
        elif isinstance(report, RefreshStopped):
            self._refreshed[report.video] = self._refreshed.get(report.video, 0.0) + max(0.0, seconds - self._times.refresh_s)
        self._tell(report)

    # ----------------------------------------------------------------------------- commands

    def _obey(self, command: Command) -> None:
        if isinstance(command, StartSlice):
            self._begin(command, *self._slice(command))
        elif isinstance(command, StartRefresh):
            self._begin(command, *self._refresh(command))
        elif isinstance(command, StopRefresh):
            self._plan(self._cluster.window_step_s, RefreshStopped(command.video, command.ticket))
        elif isinstance(command, ReplaceActor):
            self._replace(command)

    def _begin(self, start: StartSlice | StartRefresh, seconds: float, end: Event) -> None:
        self._begun[start.video, start.ticket] = (self._now, seconds, start)
        if self._cluster.failures_per_hour > 0:
            fails_after = self._random.expovariate(self._cluster.failures_per_hour / HOUR_S)
            if fails_after < seconds:
                seconds, end = fails_after, WorkFailed(start.video, start.ticket, "its process died", retry=True, actor_lost=True)
        self._plan(seconds, end)

    def _slice(self, start: StartSlice) -> tuple[float, SliceDone]:
        video, times = self._scheduler.videos[start.video], self._times
        work = video.work
        steps = min(self._slice_steps, video.steps_to_refresh)
        done = video.steps_done + steps
        finished = video.refreshes_done == work.num_refreshes
        wanted = not finished and done == work.warm_up_steps + min(video.refreshes_done * work.refresh_interval, work.steps)
        seconds = times.result_s if finished else times.slice_s + steps * times.field_step_s
        if not self._held.take(start.video, start.actor):
            seconds += times.load_s
        return seconds, SliceDone(start.video, start.ticket, done, video.refreshes_done, video.num_frames, wanted, wanted, finished)

    def _refresh(self, start: StartRefresh) -> tuple[float, RefreshDone]:
        video, job = self._scheduler.videos[start.video], self._jobs[start.video]
        seconds = video.num_frames * self._times.refresh_frame_s * job.strength(video.refreshes_done) - self._refreshed.get(start.video, 0.0)
        return max(0.0, seconds) + self._times.refresh_s, RefreshDone(start.video, start.ticket, video.refreshes_done + 1)

    def _replace(self, command: ReplaceActor) -> None:
        node = self._nodes[command.number]
        if node not in self._gone:
            self._plan(self._cluster.restart_s, ActorReady(command.number, command.role, node))
            return
        self._plan(self._cluster.new_node_s, ActorReady(command.number, command.role, f"{node}+"))
