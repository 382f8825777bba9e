"""Actors that work on joint optimisations: field workers (many, cheap) and refresh workers (few, hold the diffusion model).

Both own nothing durable. What they did is on disk before they say so, and work that is asked for again after a
death gives the same bits: states and refreshes are looked up first, and random numbers derive from (seed, video, step).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import no_type_check

import ray
import torch

from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.heap import keep_heap_small
from dpscale.data.layout import RunLayout
from dpscale.joint.checkpoint import VideoStore, state_name
from dpscale.joint.delta_cache import DeltaCache
from dpscale.joint.loop import accept, advance, is_finished, is_waiting, start
from dpscale.joint.state import JointState
from dpscale.joint.video import VideoTask, load_task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SliceReceipt:
    """What a slice has committed."""

    steps_done: int
    """Of the video, the warm-up included."""
    refreshes_done: int
    num_frames: int
    refresh_wanted: bool
    """A refresh has been asked for, or runs."""
    steps_blocked: bool
    """No step can be taken before it is answered."""
    finished: bool
    """The result is on disk."""
    losses: list[dict[str, float]]
    """History entries of this slice."""


@dataclass(frozen=True)
class RefreshReceipt:
    """Which refresh is now on disk."""

    refresh: int
    step: int
    strength: float
    seconds: float
    """Of work on it by the last worker."""
    finished: bool = True
    """False: it was asked to stop, and its progress is on disk. It goes on from there when it is asked for again."""


@dataclass(frozen=True)
class _Warm:
    """A video in a field worker's memory."""

    task: VideoTask
    state: JointState


class _Worker:
    def node(self) -> str:
        """Id of the node it runs on; answered when it is ready."""
        return ray.get_runtime_context().get_node_id()


class _FieldWorker(_Worker):
    """Runs slices of any video; keeps the states of the last few in memory."""

    def __init__(self, config: Config, layout: RunLayout) -> None:
        torch.set_num_threads(config.ray.torch_threads)
        keep_heap_small()
        self._config, self._layout = config, layout
        self._device = "cuda" if config.scheduler.field_gpus > 0 else "cpu"
        self._warm: OrderedDict[str, _Warm] = OrderedDict()

    def run_slice(self, video: VideoConfig) -> SliceReceipt:
        """Takes at most `scheduler.slice_steps` steps from where the video's folder says it is, up to its next refresh, and commits them."""
        torch.set_num_threads(self._config.ray.torch_threads)  # of this thread: a mixed worker has several
        store = VideoStore.of(self._config, self._layout, video)
        name = self._layout.video_name(video)
        warm = self._take(name, store) or self._read(video, store)
        task, state = warm.task, warm.state
        num_losses = len(state.history.losses)
        for _ in range(self._config.scheduler.slice_steps):
            if not _accept_refresh(state, task, store) or is_finished(state, task):
                break
            advance(state, task)
        if is_finished(state, task):
            store.put_result(state, task)
        else:
            store.save(state)
            self._keep(name, warm)
        return SliceReceipt(
            steps_done=state.optimizer_steps,
            refreshes_done=state.num_refreshes,
            num_frames=len(task.pose),
            refresh_wanted=state.request is not None,
            steps_blocked=is_waiting(state, task),
            finished=is_finished(state, task),
            losses=state.history.losses[num_losses:],
        )

    def _take(self, name: str, store: VideoStore) -> _Warm | None:
        """The state in memory, unless another worker has taken the video further since. A slice that fails loses it."""
        warm, newest = self._warm.pop(name, None), store.newest()
        return warm if warm is not None and newest is not None and newest.name == state_name(warm.state) else None

    def _read(self, video: VideoConfig, store: VideoStore) -> _Warm:
        task = load_task(self._config, self._layout, video)
        return _Warm(task, store.load(task, self._device) or start(task, self._device, store.keep_guidance))

    def _keep(self, name: str, warm: _Warm) -> None:
        """Those served longest ago leave memory where there are too many, or what all take is measured to be too much; all are on the disk."""
        settings = self._config.scheduler
        self._warm[name] = warm
        while len(self._warm) > settings.warm_videos or sum(kept.state.num_bytes for kept in self._warm.values()) > settings.warm_gib * 2**30:
            self._warm.popitem(last=False)


def _accept_refresh(state: JointState, task: VideoTask, store: VideoStore) -> bool:
    """Answers requests whose answers are due and there; whether the next step may be taken.

    An answer that is there before it is due waits, so that the result depends on no time."""
    while is_waiting(state, task):
        seconds = store.refresh_s(state.request.refresh)
        if seconds is None:
            return False
        accept(state, task, store.refresh(state.request.refresh), seconds)
    return True


class _RefreshWorker(_Worker):
    """Answers the refresh requests of any video, one after the other, or of one performer's videos together; meanwhile it can be told what comes
    next, or to stop."""

    def __init__(self, config: Config, layout: RunLayout) -> None:
        keep_heap_small()
        self._config, self._layout = config, layout
        self._deltas = DeltaCache.of(config.scheduler)
        self._service, self._loading = None, threading.Lock()
        self._stops: dict[str, threading.Event] = {}
        """Of the videos that it refreshes; one that is set ends its refresh at the next window-step."""

    def node(self) -> str:
        """Loading begins now, while field workers take the first steps."""
        threading.Thread(target=self._load_ahead, daemon=True).start()
        return super().node()

    def refresh(self, video: VideoConfig) -> RefreshReceipt:
        """Makes the targets that the video's newest state waits for, unless they are there already, and commits them."""
        torch.set_num_threads(self._config.ray.torch_threads)  # of this thread: an actor with several has one for each kind of work
        name = self._layout.video_name(video)
        stop = self._stops[name] = threading.Event()
        try:
            return self._refresh(video, stop.is_set)
        finally:
            del self._stops[name]

    # no_type_check: Ray looks for the group at the innermost function, which the shape checks of tests would wrap
    @ray.method(concurrency_group="stop")
    @no_type_check
    def stop_at_window_step(self, video: VideoConfig) -> bool:
        """Asks the video's refresh to leave its progress on disk and end at the next window-step; whether it runs here.

        Its receipt says whether it was finished all the same."""
        stop = self._stops.get(self._layout.video_name(video))
        if stop is None:
            return False
        stop.set()
        return True

    @ray.method(concurrency_group="prefetch")
    @no_type_check
    def prefetch(self, performer: str) -> bool:
        """Reads a performer's weights while another one's are in use; whether they are now in memory: not where both do not fit."""
        return self._deltas.prefetch(self._layout.finetune(performer))

    def _refresh(self, video: VideoConfig, should_stop: Callable[[], bool]) -> RefreshReceipt:
        from dpscale.joint.refresh import RefreshStopped

        started, store = time.monotonic(), VideoStore.of(self._config, self._layout, video)
        request = store.request()
        if request is None:  # asked for again although a field worker has the answer: what is told once more is the newest one
            return self._newest(store)
        try:
            if store.refresh_s(request.refresh) is None:
                store.keeps(lambda asked: self._loaded().answer(video, asked, should_stop))(request)
        except RefreshStopped:
            return RefreshReceipt(request.refresh, request.step, request.strength, time.monotonic() - started, finished=False)
        return RefreshReceipt(request.refresh, request.step, request.strength, store.refresh_s(request.refresh))

    @staticmethod
    def _newest(store: VideoStore) -> RefreshReceipt:
        told = store.last_refresh()
        if told is None:
            raise RuntimeError(f"{store.folder} waits for no refresh")
        return RefreshReceipt(told["refresh"], told["step"], told["strength"], told["seconds"])

    def _load_ahead(self) -> None:
        torch.set_num_threads(self._config.ray.torch_threads)
        try:
            self._loaded()
        except Exception as error:  # it comes again, and is told, when a refresh needs the model
            log.warning("the diffusion model could not be loaded ahead: %s", error)

    def _loaded(self):
        """The service with its model. Not in the constructor, for Ray hides the type of an error that is raised there."""
        from dpscale.joint.refresh import RefreshService  # diffusers is heavy, and field workers import this module too

        with self._loading:
            if self._service is None:
                self._service = RefreshService(self._config, self._layout, self._deltas)
            return self._service


class _MixedWorker(_FieldWorker, _RefreshWorker):
    """Does the work of both, one thing at a time."""

    def __init__(self, config: Config, layout: RunLayout) -> None:
        _FieldWorker.__init__(self, config, layout)
        _RefreshWorker.__init__(self, config, layout)

    def node(self) -> str:
        """Ready with the model: while diffusers builds it, modules of other threads would lose their tensors to torch's meta device."""
        self._load_ahead()
        return _Worker.node(self)


FieldWorker = ray.remote(_FieldWorker)
RefreshWorker = ray.remote(concurrency_groups={"stop": 1, "prefetch": 1})(_RefreshWorker)
MixedWorker = ray.remote(concurrency_groups={"stop": 1, "prefetch": 1})(_MixedWorker)
