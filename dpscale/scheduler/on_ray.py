"""Runs several videos' joint optimisations at once on Ray actors, as the pure scheduler commands.

The driver may die at any time: everything durable is in the videos' folders, and the same call continues from there.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError, Outcome
from dpscale.joint import plan
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.on_ray import FieldWorker, RefreshReceipt, RefreshWorker, SliceReceipt
from dpscale.joint.video import check_inputs
from dpscale.scheduler.messages import (
    ActorReady,
    Command,
    Event,
    Finish,
    RefreshDone,
    ReplaceActor,
    Role,
    SliceDone,
    StartRefresh,
    StartSlice,
    Submitted,
    VideoWork,
    WorkFailed,
)
from dpscale.scheduler.policy import make_policy
from dpscale.scheduler.state import Scheduler
from dpscale.tracking.tracker import Tracker

log = logging.getLogger(__name__)

STAGE = "optimize"


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
        num_workers = num_field_workers(config, len(videos), ray.cluster_resources())
    except InputError as error:
        return {name: Outcome(STAGE, name, 0.0, str(error)) for name in videos}
    controller = _Controller(config, layout, videos, tracker)
    try:
        return controller.run(num_workers)
    finally:
        controller.stop()


def num_field_workers(config: Config, num_videos: int, cluster: dict[str, float]) -> int:
    """As many as asked for, useful and placeable beside the refresh worker.

    Raises InputError where not even one fits: Ray would wait for ever."""
    settings = config.scheduler
    left = {"CPU": cluster.get("CPU", 0) - settings.refresh_cpus, "GPU": cluster.get("GPU", 0) - settings.refresh_gpus}
    need = {"CPU": settings.field_cpus, "GPU": settings.field_gpus}
    fit = min(int(left[kind] / need[kind]) if need[kind] > 0 else settings.field_workers for kind in need)
    if fit < 1 or min(left.values()) < 0:
        raise InputError(
            f"one field worker and one refresh worker need {settings.field_cpus + settings.refresh_cpus:g} CPUs and "
            f"{settings.field_gpus + settings.refresh_gpus:g} GPUs, the cluster has {cluster.get('CPU', 0):g} and {cluster.get('GPU', 0):g}: "
            "lower scheduler.field_cpus, refresh_cpus, field_gpus or refresh_gpus, or raise ray.num_cpus"
        )
    return min(settings.field_workers, num_videos, fit)


class _Controller:
    """Turns commands into actor calls and their results into events."""

    def __init__(self, config: Config, layout: RunLayout, videos: dict[str, VideoConfig], tracker: Tracker) -> None:
        self._config, self._layout, self._videos, self._tracker = config, layout, videos, tracker
        self._scheduler = Scheduler(make_policy(config.scheduler), config.scheduler.max_failures, config.scheduler.stall_s)
        self._actors: dict[int, Any] = {}
        self._work: dict[ray.ObjectRef, StartSlice | StartRefresh] = {}
        self._keys: dict[str, str] = {}
        self._run_id = uuid.uuid4().hex[:8]

    def run(self, num_workers: int) -> dict[str, Outcome]:
        """Blocks until every video has ended."""
        joint = self._config.joint
        work = VideoWork(joint.warm_up_steps, joint.steps, joint.refresh_interval, plan.num_refreshes(joint) + 1)
        owners = {performer.name: performer for performer in self._config.performers}
        for name in self._videos:
            self._keys[name] = self._tracker.start(STAGE, name, joint.model_dump(mode="json"))
            owner = owners[self._videos[name].performer]
            self._take_in(Submitted(name, work, tenant=owner.tenant, priority=owner.priority))
        self._start_actor(0, Role.REFRESH)
        for number in range(1, num_workers + 1):
            self._start_actor(number, Role.FIELD)
        while not self._scheduler.is_finished:
            done, _ = ray.wait(list(self._work), num_returns=1)
            self._take_in(self._event_of(done[0], self._work.pop(done[0])))
        return {
            video.name: Outcome(STAGE, video.name, video.finished_s - video.submitted_s, video.error) for video in self._scheduler.videos.values()
        }

    def stop(self) -> None:
        for actor in self._actors.values():
            ray.kill(actor)

    # ------------------------------------------------------------------------------- commands

    def _take_in(self, event: Event) -> None:
        for command in self._scheduler.handle(event, time.monotonic()):
            self._obey(command)

    def _obey(self, command: Command) -> None:
        if isinstance(command, StartSlice):
            self._work[self._actors[command.actor].run_slice.remote(self._videos[command.video])] = command
        elif isinstance(command, StartRefresh):
            self._work[self._actors[command.actor].refresh.remote(self._videos[command.video])] = command
        elif isinstance(command, ReplaceActor):
            ray.kill(self._actors.pop(command.number))
            self._start_actor(command.number, command.role)
        else:
            self._finish(command)

    def _start_actor(self, number: int, role: Role) -> None:
        settings = self._config.scheduler
        kind, cpus, gpus = {
            Role.FIELD: (FieldWorker, settings.field_cpus, settings.field_gpus),
            Role.REFRESH: (RefreshWorker, settings.refresh_cpus, settings.refresh_gpus),
        }[role]
        name = f"{role.value}-{number}-{self._run_id}-{uuid.uuid4().hex[:4]}"
        self._actors[number] = kind.options(name=name, num_cpus=cpus, num_gpus=gpus).remote(self._config, self._layout)
        self._take_in(ActorReady(number, role))

    def _finish(self, command: Finish) -> None:
        if command.error is not None:
            log.error("%s: %s", command.video, command.error)
        self._tracker.finish(self._keys[command.video], "FINISHED" if command.error is None else "FAILED")

    # --------------------------------------------------------------------------------- events

    def _event_of(self, ref: ray.ObjectRef, command: StartSlice | StartRefresh) -> Event:
        try:
            receipt = ray.get(ref)
        except RayTaskError as error:
            cause = error.cause
            log.warning("%s: %s", command.video, error)
            text = str(cause) if isinstance(cause, InputError) else f"{type(cause).__name__}: {cause}"
            return WorkFailed(command.video, command.ticket, text, retry=not isinstance(cause, InputError), actor_lost=False)
        except RayError as error:
            log.warning("%s: lost its worker (%s); continuing from its last checkpoint", command.video, type(error).__name__)
            return WorkFailed(command.video, command.ticket, f"its worker died ({error})", retry=True, actor_lost=True)
        return self._slice_event(command, receipt) if isinstance(command, StartSlice) else self._refresh_event(command, receipt)

    def _slice_event(self, command: StartSlice, receipt: SliceReceipt) -> Event:
        for entry in receipt.losses:
            values = {name: value for name, value in entry.items() if name != "step"}
            self._tracker.metrics(self._keys[command.video], values, int(entry["step"]))
        return SliceDone(
            command.video,
            command.ticket,
            receipt.steps_done,
            receipt.refreshes_done,
            receipt.num_frames,
            receipt.refresh_wanted,
            receipt.steps_blocked,
            receipt.finished,
        )

    def _refresh_event(self, command: StartRefresh, receipt: RefreshReceipt) -> Event:
        self._tracker.metrics(self._keys[command.video], {"refresh_strength": receipt.strength, "refresh_s": receipt.seconds}, receipt.step)
        return RefreshDone(command.video, command.ticket, receipt.refresh + 1)
