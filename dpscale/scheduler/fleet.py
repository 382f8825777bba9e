"""The Ray actors of a batch: starts and replaces them, gives them work, and turns what becomes of it into events."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError
from dpscale.joint.on_ray import FieldWorker, MixedWorker, RefreshReceipt, RefreshWorker, SliceReceipt
from dpscale.scheduler.messages import ActorReady, Prefetch, Role, StartRefresh, StartSlice, StopRefresh, WorkFailed

log = logging.getLogger(__name__)

MAX_STARTS = 5
"""Of one actor, in a row, that end before it is ready."""


@dataclass(frozen=True)
class _Start:
    number: int
    role: Role
    attempt: int


class Fleet:
    """Of one driver; its actors end with it."""

    def __init__(self, config: Config, layout: RunLayout) -> None:
        self._config, self._layout = config, layout
        self._actors: dict[int, Any] = {}
        self._starting: dict[ray.ObjectRef, _Start] = {}
        self._run_id = uuid.uuid4().hex[:8]

    def start(self, number: int, role: Role, attempt: int = 1) -> None:
        """The actor is ready when `wait` gives a reference that `started` knows."""
        settings = self._config.scheduler
        kind, cpus, gpus, at_once = {
            Role.FIELD: (FieldWorker, settings.field_cpus, settings.field_gpus, 1),
            Role.REFRESH: (RefreshWorker, settings.refresh_cpus, settings.refresh_gpus, settings.refresh_together),
        }[role]
        if settings.mixed:
            kind, at_once = MixedWorker, settings.refresh_together
        name = f"{role.value}-{number}-{self._run_id}-{uuid.uuid4().hex[:4]}"
        actor = kind.options(name=name, num_cpus=cpus, num_gpus=gpus, max_concurrency=at_once).remote(self._config, self._layout)
        self._actors[number] = actor
        self._starting[actor.node.remote()] = _Start(number, role, attempt)

    def replace(self, number: int, role: Role) -> None:
        ray.kill(self._actors.pop(number))
        self.start(number, role)

    def begin(self, command: StartSlice | StartRefresh, video: VideoConfig) -> ray.ObjectRef:
        actor = self._actors[command.actor]
        return actor.run_slice.remote(video) if isinstance(command, StartSlice) else actor.refresh.remote(video)

    def stop_refresh(self, command: StopRefresh, video: VideoConfig) -> None:
        """Without waiting: its receipt tells. One that has not begun, or just ends, goes on to its end."""
        self._actors[command.actor].stop_at_window_step.remote(video)

    def prefetch(self, command: Prefetch, video: VideoConfig) -> None:
        """Without waiting: if it fails, the refresh itself will say so."""
        self._actors[command.actor].prefetch.remote(video.performer)

    def wait(self, work: Iterable[ray.ObjectRef], timeout_s: float) -> list[ray.ObjectRef]:
        """Those of `work`, and of the starts, that have ended; at most `timeout_s` passes."""
        done, _ = ray.wait([*self._starting, *work], num_returns=1, timeout=timeout_s)
        return done

    def started(self, ref: ray.ObjectRef) -> ActorReady | None:
        """The actor that a start has led to, or None: it died, and another one was started. Raises InputError where that is hopeless."""
        start = self._starting.pop(ref)
        try:
            return ActorReady(start.number, start.role, ray.get(ref))
        except RayError as error:
            log.warning("a %s worker did not start (%s)", start.role.value, error)
            if start.attempt >= MAX_STARTS:
                raise InputError(
                    f"no {start.role.value} worker starts, in {MAX_STARTS} attempts: {error}. Ray's logs of it lie in session_latest/logs of its node"
                ) from error
            self.start(start.number, start.role, start.attempt + 1)
            return None

    def close(self) -> None:
        for actor in self._actors.values():
            ray.kill(actor)


def receipt_of(ref: ray.ObjectRef, command: StartSlice | StartRefresh) -> SliceReceipt | RefreshReceipt | WorkFailed:
    """What the work says that it did, or how it failed."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        cause = error.cause
        log.warning("%s: %s", command.video, error)
        mistake = isinstance(cause, InputError)
        text = str(cause) if mistake else f"{type(cause).__name__}: {cause}\n{error}"
        return WorkFailed(command.video, command.ticket, text, retry=not mistake, actor_lost=False)
    except RayError as error:
        blameless = isinstance(error, RayActorError) and error.preempted
        log.warning("%s: lost its worker (%s); continuing from its last checkpoint", command.video, type(error).__name__)
        return WorkFailed(command.video, command.ticket, f"its worker died ({error})", retry=True, actor_lost=True, blameless=blameless)
