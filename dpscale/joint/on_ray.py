"""Actors that work on joint optimisations: field workers (many, cheap) and refresh workers (few, hold the diffusion model).

Both own nothing durable. What they did is on disk before they say so, and work that is asked for again after a
death gives the same bits: states and refreshes are looked up first, and random numbers derive from (seed, video, step).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import ray
import torch

from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.layout import RunLayout
from dpscale.joint.checkpoint import VideoStore, state_name
from dpscale.joint.loop import accept, advance, is_finished, is_waiting, start
from dpscale.joint.state import JointState
from dpscale.joint.video import VideoTask, load_task


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
        self._config, self._layout = config, layout
        self._device = "cuda" if config.scheduler.field_gpus > 0 else "cpu"
        self._warm: OrderedDict[str, _Warm] = OrderedDict()

    def run_slice(self, video: VideoConfig) -> SliceReceipt:
        """Takes at most `scheduler.slice_steps` steps from where the video's folder says it is, up to its next refresh, and commits them."""
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
        self._warm[name] = warm
        while len(self._warm) > self._config.scheduler.warm_videos:
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
    """Answers the refresh requests of any video, one after the other."""

    def __init__(self, config: Config, layout: RunLayout) -> None:
        torch.set_num_threads(config.ray.torch_threads)
        self._config, self._layout = config, layout
        self._service = None

    def refresh(self, video: VideoConfig) -> RefreshReceipt:
        """Makes the targets that the video's newest state waits for, unless they are there already, and commits them."""
        store = VideoStore.of(self._config, self._layout, video)
        request = store.request()
        if request is None:  # asked for again although a field worker has the answer: what is told once more is the newest one
            return self._newest(store)
        if store.refresh_s(request.refresh) is None:
            store.keeps(lambda asked: self._loaded().answer(video, asked))(request)
        return RefreshReceipt(request.refresh, request.step, request.strength, store.refresh_s(request.refresh))

    @staticmethod
    def _newest(store: VideoStore) -> RefreshReceipt:
        told = store.last_refresh()
        if told is None:
            raise RuntimeError(f"{store.folder} waits for no refresh")
        return RefreshReceipt(told["refresh"], told["step"], told["strength"], told["seconds"])

    def _loaded(self):
        """The service with its model. Not in the constructor, for Ray hides the type of an error that is raised there."""
        from dpscale.joint.refresh import RefreshService  # diffusers is heavy, and field workers import this module too

        if self._service is None:
            self._service = RefreshService(self._config, self._layout)
        return self._service


FieldWorker = ray.remote(_FieldWorker)
RefreshWorker = ray.remote(_RefreshWorker)
