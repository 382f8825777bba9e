"""What happened in a run, for people to read later: the protocol, its events, and the trackers without a server.

Observation cannot stop a run: after the start every failure is one warning (`Guarded`). Misconfiguration
must: constructing a tracker raises InputError.
"""

from __future__ import annotations

import json
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError
from dpscale.tracking.names import shown

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]

Event = dict[str, Any]
"""What one call of a tracker says, as JSON: `event` (start, metrics, tags, artifact, register, finish), `key`, `time_ms`, and the rest.

The time is taken where the call is made and never again, so an event that is sent twice is the same event twice."""

BATCH = "batch"
"""Key of the parent run: it exists from the start, without a call of `start`."""

MAX_CONSECUTIVE_FAILURES = 3
"""After so many failures in a row a guarded tracker stops trying."""


def run_key(stage: str, name: str) -> str:
    """Key of the child run of one performer or video in one stage. A function of the names: a resumed run finds it again."""
    return f"{stage}/{name}"


@runtime_checkable
class Tracker(Protocol):
    """Where params, metrics and artifacts of a run go. `key` is what `start` returned, or BATCH."""

    def start(self, stage: str, name: str, params: Mapping[str, Any]) -> str:
        """Opens, or continues, the run of one performer or video in one stage; returns its key."""
        ...

    def metrics(self, key: str, values: Mapping[str, float], step: int) -> None: ...

    def tags(self, key: str, tags: Mapping[str, str]) -> None:
        """Facts that may change later, unlike params. A run that was not started is made."""
        ...

    def artifact(self, key: str, path: Path, folder: str = "") -> None:
        """Keeps a copy of the file `path` in `folder` of the run's artifacts."""
        ...

    def register(self, key: str, performer: str, files: Sequence[Path], about: Mapping[str, str]) -> None:
        """Makes `files` the newest version of the performer's registered model.

        `about`: tags of that version; the same `settings` are the same version."""
        ...

    def finish(self, key: str, status: Status) -> None:
        """Closes a run. Closing BATCH closes every child that is still open with the same status."""
        ...

    def flush(self) -> None:
        """Returns when everything given before is safe."""
        ...

    def close(self) -> None:
        """Flushes, and ends the record: nothing may follow."""
        ...


class Recorder(ABC):
    """The protocol's calls as events; what becomes of an event is what trackers differ in."""

    @abstractmethod
    def record(self, events: Sequence[Event]) -> None: ...

    def flush(self) -> None:  # noqa: B027 - where nothing waits there is nothing to do
        pass

    def close(self) -> None:
        self.flush()

    def start(self, stage: str, name: str, params: Mapping[str, Any]) -> str:
        key = run_key(stage, name)
        self.record([event("start", key, stage=stage, name=name, params=dict(params))])
        return key

    def metrics(self, key: str, values: Mapping[str, float], step: int) -> None:
        self.record([event("metrics", key, values={name: float(value) for name, value in values.items()}, step=int(step))])

    def tags(self, key: str, tags: Mapping[str, str]) -> None:
        self.record([event("tags", key, tags=dict(tags))])

    def artifact(self, key: str, path: Path, folder: str = "") -> None:
        self.record([event("artifact", key, path=str(Path(path).absolute()), folder=folder)])

    def register(self, key: str, performer: str, files: Sequence[Path], about: Mapping[str, str]) -> None:
        self.record([event("register", key, performer=performer, files=[str(Path(file).absolute()) for file in files], about=dict(about))])

    def finish(self, key: str, status: Status) -> None:
        self.record([event("finish", key, status=status)])


def event(what: str, key: str, **values: Any) -> Event:
    """An event of this moment."""
    return {"time_ms": time.time_ns() // 1_000_000, "event": what, "key": key, **values}


class NullTracker(Recorder):
    """Forgets everything."""

    def record(self, events: Sequence[Event]) -> None:
        pass


class FileTracker(Recorder):
    """One JSON object a line in <run>/tracking.jsonl; artifacts are named, not copied."""

    def __init__(self, path: Path, params: Mapping[str, Any]) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.record([event("start", BATCH, params=dict(params))])
        except OSError as error:
            raise InputError(f"tracking.kind = 'file': {path} cannot be written ({error}); free the path, or set tracking.kind = 'none'") from error

    def record(self, events: Sequence[Event]) -> None:
        with self._path.open("a") as file:
            file.write("".join(json.dumps(_without_nan(event), default=str) + "\n" for event in events))


def _without_nan(event: Event) -> Event:
    """JSON has no NaN: a reader must get null, not a syntax error."""
    if event["event"] != "metrics":
        return event
    return event | {"values": {name: value if math.isfinite(value) else None for name, value in event["values"].items()}}


class Guarded(Recorder):
    """Passes every event to `inner`; its first failure is one warning, and after three in a row it is left alone."""

    def __init__(self, inner: Recorder) -> None:
        self._inner = inner
        self._warned = False
        self._failures = 0

    def record(self, events: Sequence[Event]) -> None:
        self._try(", ".join(sorted({event["event"] for event in events})), lambda: self._inner.record(events))

    def flush(self) -> None:
        self._try("flush", self._inner.flush)

    def close(self) -> None:
        self._try("close", self._inner.close)

    def _try(self, what: str, call: Callable[[], object]) -> None:
        if self._failures >= MAX_CONSECUTIVE_FAILURES:
            return
        try:
            call()
            self._failures = 0
        except Exception as error:  # a full disk, a folder that went away: whatever it is, the run goes on
            self._failures += 1
            if not self._warned:
                log.warning("tracking failed (%s: %s: %s); the run goes on, its record has gaps", what, type(error).__name__, error)
            self._warned = True


def flat_params(config: Config) -> dict[str, Any]:
    """The resolved config as one level: ``finetune.decoder.lr -> 5e-5``; lists stay whole, as JSON. Without the password of tracking.uri."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                visit(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = json.dumps(value) if isinstance(value, list | dict) else value

    visit("", config.model_dump(mode="json"))
    return flat | ({"tracking.uri": shown(config.tracking.uri)} if config.tracking.uri else {})


def _null(config: Config, layout: RunLayout) -> Recorder:
    return NullTracker()


def _file(config: Config, layout: RunLayout) -> Recorder:
    return Guarded(FileTracker(layout.root / "tracking.jsonl", flat_params(config)))


def _mlflow(config: Config, layout: RunLayout) -> Recorder:
    from dpscale.tracking.mlflow_tracker import MlflowStore  # seconds to import: only where it is wanted
    from dpscale.tracking.spooled import SpooledTracker

    tracker = SpooledTracker(spool_folder(layout), MlflowStore(config, layout), config.tracking)
    tracker.record([event("start", BATCH, params=flat_params(config))])
    return Guarded(tracker)


TRACKERS: dict[str, Callable[[Config, RunLayout], Recorder]] = {"none": _null, "file": _file, "mlflow": _mlflow}


def make_tracker(config: Config, layout: RunLayout) -> Recorder:
    """The tracker of `config.tracking`, for use in one process.

    Raises InputError where it cannot be opened."""
    return TRACKERS[config.tracking.kind](config, layout)


def spool_folder(layout: RunLayout) -> Path:
    """Where events lie until MLflow has them."""
    return layout.root / "tracking"
