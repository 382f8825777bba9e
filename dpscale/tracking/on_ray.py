"""One actor writes for all workers: SQLite takes one writer well and many badly, and a slow server then slows nobody."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError
from dpscale.tracking.tracker import NullTracker, Status, Tracker, make_tracker, run_key

log = logging.getLogger(__name__)

FLUSH_TIMEOUT_S = 60.0
MAX_RESTARTS = 3
REMEMBERED_CALLS = 1000
"""Calls remembered before the finished ones are forgotten."""


class _Writer:
    """Owns the tracker. After a crash the new process opens it again and continues the same runs."""

    def __init__(self, config: Config, layout: RunLayout) -> None:
        self._config, self._layout = config, layout
        self._tracker: Tracker | None = None

    def open(self) -> Tracker:
        """Separate from the constructor, for Ray hides the type of an error that is raised there."""
        if self._tracker is None:
            self._tracker = make_tracker(self._config, self._layout)
        return self._tracker

    def check(self) -> None:
        self.open()

    def start(self, stage: str, name: str, params: Mapping[str, Any]) -> None:
        self.open().start(stage, name, params)

    def metrics(self, key: str, values: Mapping[str, float], step: int) -> None:
        self.open().metrics(key, values, step)

    def artifact(self, key: str, path: Path, folder: str) -> None:
        self.open().artifact(key, path, folder)

    def finish(self, key: str, status: Status) -> None:
        self.open().finish(key, status)

    def flush(self) -> None:
        self.open().flush()


TrackerActor = ray.remote(num_cpus=0, max_restarts=MAX_RESTARTS, max_task_retries=MAX_RESTARTS)(_Writer)


class ActorTracker:
    """Implements Tracker: sends every call to the writer and does not wait. May be passed to tasks and actors."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._sent: list[ray.ObjectRef] = []

    def __reduce__(self) -> tuple[type[ActorTracker], tuple[Any]]:
        return ActorTracker, (self._actor,)  # each process waits for its own calls

    def start(self, stage: str, name: str, params: Mapping[str, Any]) -> str:
        self._send(self._actor.start.remote(stage, name, dict(params)))
        return run_key(stage, name)

    def metrics(self, key: str, values: Mapping[str, float], step: int) -> None:
        self._send(self._actor.metrics.remote(key, dict(values), step))

    def artifact(self, key: str, path: Path, folder: str = "") -> None:
        self._send(self._actor.artifact.remote(key, Path(path).resolve(), folder))

    def finish(self, key: str, status: Status) -> None:
        self._send(self._actor.finish.remote(key, status))

    def flush(self) -> None:
        """Waits for everything that this process has sent, at most a minute."""
        self._send(self._actor.flush.remote())
        done, late = ray.wait(self._sent, num_returns=len(self._sent), timeout=FLUSH_TIMEOUT_S)
        self._sent = []
        try:
            ray.get(done)
        except RayError as error:
            log.warning("the tracking process is gone (%s); the run goes on, its record has gaps", type(error).__name__)
        if late:
            log.warning("tracking is more than %g s behind; the run goes on", FLUSH_TIMEOUT_S)

    def _send(self, call: ray.ObjectRef) -> None:
        """Remembers a call, for after a crash of the writer calls may be repeated in another order: a late one proves nothing."""
        self._sent.append(call)
        if len(self._sent) >= REMEMBERED_CALLS:
            self._sent = ray.wait(self._sent, num_returns=len(self._sent), timeout=0)[1]


def start_tracker(config: Config, layout: RunLayout) -> Tracker:
    """Starts the one writer of a run, and waits until its store is open. Ray must be initialised.

    Raises InputError where `config.tracking` cannot be opened."""
    if config.tracking.kind == "none":
        return NullTracker()
    actor = TrackerActor.remote(config, layout)
    try:
        ray.get(actor.check.remote())
    except RayTaskError as error:
        ray.kill(actor)
        if isinstance(error.cause, InputError):
            raise error.cause from None
        raise
    return ActorTracker(actor)
