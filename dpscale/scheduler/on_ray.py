"""Runs several videos' joint optimisations at once on Ray actors, as the pure scheduler commands.

The driver may die at any time: everything durable is in the videos' folders and the logbook, and the same call continues from there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import closing

import ray

from dpscale.config.schema import Config, SchedulerConfig
from dpscale.config.sources import VideoConfig
from dpscale.data.layout import RunLayout
from dpscale.data.on_ray import draining_nodes, room_for
from dpscale.data.types import InputError, Outcome
from dpscale.joint import plan
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.on_ray import RefreshReceipt, SliceReceipt
from dpscale.joint.video import check_inputs, settings_of
from dpscale.scheduler.fleet import Fleet, receipt_of
from dpscale.scheduler.gauges import Gauges
from dpscale.scheduler.journal import Opening
from dpscale.scheduler.logbook import Logbook
from dpscale.scheduler.messages import (
    Command,
    Event,
    Finish,
    NodeDraining,
    Prefetch,
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
from dpscale.scheduler.records import VideoRecord
from dpscale.scheduler.status import figures
from dpscale.tracking.tracker import BATCH, Tracker

log = logging.getLogger(__name__)

STAGE = "optimize"

LOOK_S = 1.0
"""Between looks at what nobody reports: wishes and notices."""

TICK_S = 5.0
"""Between ticks of the scheduler, each a line of the journal."""


def optimize(config: Config, layout: RunLayout, videos: Sequence[VideoConfig], tracker: Tracker) -> list[Outcome]:
    """Makes every video; one outcome each, in order. Ray must be initialised. Finished videos are skipped."""
    outcomes: dict[str, Outcome] = {}
    pending: dict[str, VideoConfig] = {}
    for video in videos:
        name = layout.video_name(video)
        ended = _already_ended(config, layout, video)
        if ended is None:
            pending[name] = video
        else:
            outcomes[name] = ended
    if pending:
        outcomes |= _run(config, layout, pending, tracker)
    return [outcomes[layout.video_name(video)] for video in videos]


def _already_ended(config: Config, layout: RunLayout, video: VideoConfig) -> Outcome | None:
    """The outcome of a video that is finished or cannot begin; else None, and its folder is clean."""
    name = layout.video_name(video)
    try:
        check_inputs(config, layout, video)
    except InputError as error:
        return Outcome(STAGE, name, 0.0, str(error))
    store = VideoStore.of(config, layout, video)
    if store.has_result():
        return Outcome(STAGE, name, 0.0, skipped=True)
    store.remove_leftovers()
    return None


def _run(config: Config, layout: RunLayout, videos: dict[str, VideoConfig], tracker: Tracker) -> dict[str, Outcome]:
    try:
        workers = num_workers(config, len(videos), room_for(_actors(config, len(videos)), config.ray.grow_wait_s))
        with closing(_Controller(config, layout, videos, tracker)) as controller:
            return controller.run(workers)
    except InputError as error:
        return {name: Outcome(STAGE, name, 0.0, str(error)) for name in videos}


def _needs(settings: SchedulerConfig) -> dict[Role, dict[str, float]]:
    """What one actor of each role asks of Ray."""
    return {
        Role.REFRESH: {"CPU": settings.refresh_cpus, "GPU": settings.refresh_gpus},
        Role.FIELD: {"CPU": settings.field_cpus, "GPU": settings.field_gpus},
    }


def _useful(settings: SchedulerConfig, num_videos: int) -> dict[Role, int]:
    """Actors of each role that a batch has work for."""
    return {Role.REFRESH: min(settings.refresh_workers, num_videos), Role.FIELD: min(settings.field_workers, num_videos)}


def _actors(config: Config, num_videos: int) -> list[dict[str, float]]:
    """What the actors of a batch ask of Ray, where all have room."""
    needs = _needs(config.scheduler)
    return [needs[role] for role, number in _useful(config.scheduler, num_videos).items() for _ in range(number)]


def _num_mixed(settings: SchedulerConfig, num_videos: int, cluster: dict[str, float]) -> dict[Role, int]:
    need = _needs(settings)[Role.REFRESH]
    room = min(int(cluster.get(kind, 0.0) / amount + 1e-9) for kind, amount in need.items() if amount > 0)
    if room == 0:
        raise InputError(
            f"a worker needs {need['CPU']:g} CPUs and {need['GPU']:g} GPUs, the cluster has {cluster.get('CPU', 0):g} and {cluster.get('GPU', 0):g}: "
            "lower scheduler.field_cpus and refresh_cpus, or field_gpus and refresh_gpus, or raise ray.num_cpus"
        )
    return {Role.FIELD: min(room, num_videos, settings.field_workers + settings.refresh_workers)}


def num_workers(config: Config, num_videos: int, cluster: dict[str, float]) -> dict[Role, int]:
    """As many as asked for, useful and placeable: one of each role first, then refresh workers, then field workers.

    Raises InputError where not even one of each fits: Ray would wait for ever."""
    if config.scheduler.mixed:
        return _num_mixed(config.scheduler, num_videos, cluster)
    needs, useful = _needs(config.scheduler), _useful(config.scheduler, num_videos)
    both = {kind: sum(need[kind] for need in needs.values()) for kind in ("CPU", "GPU")}
    left = {kind: cluster.get(kind, 0.0) - amount for kind, amount in both.items()}
    if min(left.values()) < 0:
        raise InputError(
            f"one field worker and one refresh worker need {both['CPU']:g} CPUs and {both['GPU']:g} GPUs, the cluster has "
            f"{cluster.get('CPU', 0):g} and {cluster.get('GPU', 0):g}: "
            "lower scheduler.field_cpus, refresh_cpus, field_gpus or refresh_gpus, or raise ray.num_cpus"
        )
    workers = dict.fromkeys(needs, 1)
    for role, need in needs.items():
        more = min([useful[role] - 1, *(int(left[kind] / need[kind] + 1e-9) for kind in need if need[kind] > 0)])
        workers[role] += more
        left = {kind: left[kind] - more * need[kind] for kind in left}
    return workers


class _Controller:
    """Turns commands into actor calls and their results into events."""

    def __init__(self, config: Config, layout: RunLayout, videos: dict[str, VideoConfig], tracker: Tracker) -> None:
        self._config, self._videos, self._tracker = config, videos, tracker
        fingerprints = {name: VideoStore.of(config, layout, video).fingerprint for name, video in videos.items()}
        opening = Opening(config.scheduler, fingerprints, _rebalance_s(config.scheduler))
        self._scheduler = opening.scheduler()
        self._logbook = Logbook(layout.scheduling, opening, time.time())
        self._fleet, self._gauges = Fleet(config, layout), Gauges()
        self._work: dict[ray.ObjectRef, tuple[StartSlice | StartRefresh, float]] = {}
        """With the time at which it began."""
        self._keys: dict[str, str] = {}
        self._looked_s = self._ticked_s = 0.0
        self._began_s = time.monotonic()
        self._draining: set[str] = set()

    def run(self, workers: dict[Role, int]) -> dict[str, Outcome]:
        """Blocks until every video has ended. Raises InputError where workers do not start."""
        self._submit_all()
        for number, role in enumerate(role for role, count in workers.items() for _ in range(count)):
            self._fleet.start(number, role)
        while not self._scheduler.is_finished:
            for ref in self._fleet.wait(self._work, LOOK_S):
                event = self._report(ref) if ref in self._work else self._fleet.started(ref)
                if event is not None:
                    self._take_in(event)
            if time.monotonic() - self._looked_s >= LOOK_S:
                self._look_around()
        return {name: _outcome(video) for name, video in self._scheduler.videos.items()}

    def close(self) -> None:
        self._fleet.close()
        self._logbook.close(self._scheduler, time.time())

    def _submit_all(self) -> None:
        owners = {performer.name: performer for performer in self._config.performers}
        for name, video in self._videos.items():
            joint = settings_of(self._config, video).joint
            work = VideoWork(joint.warm_up_steps, joint.steps, joint.refresh_interval, plan.num_refreshes(joint) + 1)
            self._keys[name] = self._tracker.start(STAGE, name, joint.model_dump(mode="json"))
            owner = owners[video.performer]
            for event in self._logbook.first_words(Submitted(name, work, tenant=owner.tenant, priority=owner.priority, performer=owner.name)):
                self._take_in(event)

    # --------------------------------------------------------------------------------- events

    def _look_around(self) -> None:
        """What nobody reports."""
        for wish in self._logbook.wishes():
            log.warning("%s: %s", wish.video, type(wish).__name__.lower())
            self._take_in(wish)
        new = set(draining_nodes()) - self._draining
        self._draining |= new
        for node in sorted(new):
            self._take_in(NodeDraining(node))
        found = figures(self._scheduler)
        if time.monotonic() - self._ticked_s >= TICK_S:
            self._take_in(Tick())
            self._ticked_s = time.monotonic()
            self._tracker.metrics(BATCH, {f"scheduler/{name}": value for name, value in found.items()}, int(self._ticked_s - self._began_s))
        self._logbook.show(self._scheduler, time.time())
        self._gauges.show(found)
        self._looked_s = time.monotonic()

    def _take_in(self, event: Event) -> None:
        now_s = time.time()
        self._logbook.taken_in(event, now_s)
        for command in self._scheduler.handle(event, now_s):
            self._obey(command)

    def _report(self, ref: ray.ObjectRef) -> Event:
        command, began_s = self._work.pop(ref)
        receipt, seconds = receipt_of(ref, command), time.monotonic() - began_s
        if isinstance(receipt, WorkFailed):
            self._gauges.failed()
            return receipt
        if isinstance(command, StartSlice):
            return self._slice_event(command, receipt, seconds)
        return self._refresh_event(command, receipt, seconds)

    def _slice_event(self, command: StartSlice, receipt: SliceReceipt, seconds: float) -> SliceDone:
        for entry in receipt.losses:
            values = {name: value for name, value in entry.items() if name != "step"}
            self._tracker.metrics(self._keys[command.video], values, int(entry["step"]))
            self._logbook.lost(command.video, 255 * entry["loss_reconstruction"])
        self._logbook.measured(Role.FIELD, receipt.steps_done - self._scheduler.videos[command.video].steps_done, seconds)
        self._gauges.took(Role.FIELD, seconds)
        done = (receipt.steps_done, receipt.refreshes_done, receipt.num_frames, receipt.refresh_wanted, receipt.steps_blocked, receipt.finished)
        return SliceDone(command.video, command.ticket, *done)

    def _refresh_event(self, command: StartRefresh, receipt: RefreshReceipt, seconds: float) -> RefreshDone | RefreshStopped:
        if not receipt.finished:
            return RefreshStopped(command.video, command.ticket)
        self._tracker.metrics(self._keys[command.video], {"refresh_strength": receipt.strength, "refresh_s": receipt.seconds}, receipt.step)
        actor = self._scheduler.actors.get(command.actor)
        shared = max(1, len(actor.videos)) if actor is not None else 1  # its time was the others' too (scheduler.refresh_together)
        self._logbook.measured(Role.REFRESH, self._scheduler.videos[command.video].num_frames, seconds / shared)
        self._gauges.took(Role.REFRESH, seconds)
        return RefreshDone(command.video, command.ticket, receipt.refresh + 1)

    # ------------------------------------------------------------------------------- commands

    def _obey(self, command: Command) -> None:
        if isinstance(command, StartSlice | StartRefresh):
            self._work[self._fleet.begin(command, self._videos[command.video])] = (command, time.monotonic())
        elif isinstance(command, StopRefresh):
            self._fleet.stop_refresh(command, self._videos[command.video])
        elif isinstance(command, Prefetch):
            self._fleet.prefetch(command, self._videos[command.video])
        elif isinstance(command, ReplaceActor):
            self._fleet.replace(command.number, command.role)
        elif isinstance(command, Finish):
            if command.error is not None:
                log.error("%s: %s", command.video, command.error)
            self._tracker.finish(self._keys[command.video], "FINISHED" if command.error is None else "FAILED")


def _rebalance_s(settings: SchedulerConfig) -> float | None:
    """Actors may change their role only where both ask for the same resources."""
    same = (settings.field_cpus, settings.field_gpus) == (settings.refresh_cpus, settings.refresh_gpus)
    return settings.rebalance_s if same else None


def _outcome(video: VideoRecord) -> Outcome:
    assert video.finished_s is not None
    return Outcome(STAGE, video.name, video.finished_s - video.submitted_s, video.error)
