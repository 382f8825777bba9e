"""What happened in a run, for people to read later: the protocol, and the trackers without a server.

Observation cannot stop a run: after the start every failure is one warning (`Guarded`). Misconfiguration
must: constructing a tracker raises InputError.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]

BATCH = "batch"
"""Key of the parent run: it exists from the start, without a call of `start`."""

MAX_CONSECUTIVE_FAILURES = 3
"""After so many failures in a row a guarded tracker stops trying: a dead server would block for minutes at every call."""


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

    def artifact(self, key: str, path: Path, folder: str = "") -> None:
        """Keeps a copy of the file `path` in `folder` of the run's artifacts."""
        ...

    def finish(self, key: str, status: Status) -> None:
        """Closes a run. Closing BATCH closes every child that is still open with the same status."""
        ...

    def flush(self) -> None:
        """Returns when everything given before has been written."""
        ...


class NullTracker:
    """Forgets everything."""

    def start(self, stage: str, name: str, params: Mapping[str, Any]) -> str:
        return run_key(stage, name)

    def metrics(self, key: str, values: Mapping[str, float], step: int) -> None:
        pass

    def artifact(self, key: str, path: Path, folder: str = "") -> None:
        pass

    def finish(self, key: str, status: Status) -> None:
        pass

    def flush(self) -> None:
        pass


class FileTracker:
    """One JSON object a line in <run>/tracking.jsonl; artifacts are named, not copied."""

    def __init__(self, path: Path, params: Mapping[str, Any]) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write("start", BATCH, params=dict(params))
        except OSError as error:
            raise InputError(f"tracking.kind = 'file': {path} cannot be written ({error}); free the path, or set tracking.kind = 'none'") from error

    def start(self, stage: str, name: str, params: Mapping[str, Any]) -> str:
        key = run_key(stage, name)
        self._write("start", key, params=dict(params))
        return key

    def metrics(self, key: str, values: Mapping[str, float], step: int) -> None:
        # JSON has no NaN: a reader must get null, not a syntax error.
        self._write("metrics", key, values={k: float(v) if math.isfinite(v) else None for k, v in values.items()}, step=step)

    def artifact(self, key: str, path: Path, folder: str = "") -> None:
        self._write("artifact", key, path=str(path), folder=folder)

    def finish(self, key: str, status: Status) -> None:
        self._write("finish", key, status=status)

    def flush(self) -> None:
        pass

    def _write(self, event: str, key: str, **values: object) -> None:
        line = json.dumps({"time_s": round(time.time(), 3), "event": event, "key": key, **values}, default=str)
        with self._path.open("a") as file:
            file.write(line + "\n")


class Guarded:
    """Passes every call to `inner`; its first failure is one warning, and after three in a row it is left alone."""

    def __init__(self, inner: Tracker) -> None:
        self._inner = inner
        self._warned = False
        self._failures = 0

    def start(self, stage: str, name: str, params: Mapping[str, Any]) -> str:
        self._try("start", lambda: self._inner.start(stage, name, params))
        return run_key(stage, name)

    def metrics(self, key: str, values: Mapping[str, float], step: int) -> None:
        self._try("metrics", lambda: self._inner.metrics(key, values, step))

    def artifact(self, key: str, path: Path, folder: str = "") -> None:
        self._try("artifact", lambda: self._inner.artifact(key, path, folder))

    def finish(self, key: str, status: Status) -> None:
        self._try("finish", lambda: self._inner.finish(key, status))

    def flush(self) -> None:
        self._try("flush", self._inner.flush)

    def _try(self, what: str, call: Callable[[], object]) -> None:
        if self._failures >= MAX_CONSECUTIVE_FAILURES:
            return
        try:
            call()
            self._failures = 0
        except Exception as error:  # whatever a tracking server does, the run goes on
            self._failures += 1
            if not self._warned:
                log.warning("tracking failed (%s: %s: %s); the run goes on, its record has gaps", what, type(error).__name__, error)
            self._warned = True


def flat_params(config: Config) -> dict[str, Any]:
    """The resolved config as one level: ``finetune.decoder.lr -> 5e-5``; lists stay whole, as JSON."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                visit(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = json.dumps(value) if isinstance(value, list | dict) else value

    visit("", config.model_dump(mode="json"))
    return flat


def _null(config: Config, layout: RunLayout) -> Tracker:
    return NullTracker()


def _file(config: Config, layout: RunLayout) -> Tracker:
    return Guarded(FileTracker(layout.root / "tracking.jsonl", flat_params(config)))


def _mlflow(config: Config, layout: RunLayout) -> Tracker:
    from dpscale.tracking.mlflow_tracker import MlflowTracker  # seconds to import: only where it is wanted

    return Guarded(MlflowTracker(config, layout))


TRACKERS: dict[str, Callable[[Config, RunLayout], Tracker]] = {"none": _null, "file": _file, "mlflow": _mlflow}


def make_tracker(config: Config, layout: RunLayout) -> Tracker:
    """The tracker of `config.tracking`, for use in one process.

    Raises InputError where it cannot be opened."""
    return TRACKERS[config.tracking.kind](config, layout)
