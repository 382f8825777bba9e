"""MLflow: one parent run per batch, a child per performer and stage, a registered model per performer. The only import of mlflow.

Everything here may be repeated: a point is a row whose key in MLflow's databases is all of it (run, name, step, time, value), a run is found
again by a tag that is made from the run folder, a model's version by the settings it was made with. So what was sent without an answer is
sent again, and is there once. `MlflowClient` throughout, never the fluent interface, which has one active run per process.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

# Before the import: no usage reports to anyone, no lines on a job's screen. Attempts are repeated here (dpscale.tracking.lane), so MLflow's
# own are left out: with them one call to a server that is away takes minutes.
_SETTINGS_OF_MLFLOW = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
for _variable, _value in _SETTINGS_OF_MLFLOW.items():
    os.environ.setdefault(_variable, _value)

from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Experiment, Metric, Param, Run, RunTag, ViewType  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

from dpscale.config.schema import Config  # noqa: E402
from dpscale.data.checkpoint import write_json  # noqa: E402
from dpscale.data.layout import RunLayout  # noqa: E402
from dpscale.data.types import InputError  # noqa: E402
from dpscale.tracking.lane import Outage, Refused  # noqa: E402
from dpscale.tracking.names import safe_key, safe_text, shown  # noqa: E402
from dpscale.tracking.registered_model import register_version  # noqa: E402
from dpscale.tracking.tracker import BATCH, Event  # noqa: E402
from dpscale.tracking.uri import check_answers, check_uri, expanded  # noqa: E402

log = logging.getLogger(__name__)

POINTS_PER_CALL, PARAMS_PER_CALL = 1000, 100
PARAM_CHARACTERS, TAG_CHARACTERS, NAME_CHARACTERS = 6000, 8000, 250
"""MLflow's limits."""

RUN_TAG = "dpscale.run"
"""Tag by which a run is found again: a hash of the run folder's own number and the run's key."""

_CERTAIN = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"}
_DOUBTFUL = {"BAD_REQUEST"}
"""What a server also answers whose database has just been lost."""
_SETTINGS = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "ENDPOINT_NOT_FOUND", "NOT_FOUND", "INVALID_PARAMETER_VALUE"}
"""Answers to the first call that no waiting will change."""


class MlflowStore:
    """Implements dpscale.tracking.spooled.Store. One process at a time for one run folder.

    Without `tracking.uri` it is SQLite at <run.root>/mlflow.db, its artifacts lie in <run.root>/mlartifacts.
    Raises InputError where the URI cannot be used."""

    def __init__(self, config: Config, layout: RunLayout) -> None:
        self._ids_path, self._database = layout.root / "tracking.json", layout.mlflow_db
        self._is_local = config.tracking.uri is None
        self._uri = expanded(config.tracking.uri) if config.tracking.uri else f"sqlite:///{layout.mlflow_db}"
        self._name, self._run_name = config.tracking.experiment, config.run.name
        check_uri(self._uri)
        for name, level in (("alembic", logging.WARNING), ("mlflow.store.db.utils", logging.CRITICAL)):
            logging.getLogger(name).setLevel(level)  # else each table of a new database is a line, each failure a stack
        self._lock = threading.RLock()
        self._experiment: Experiment | None = None
        self._checked: set[str] = set()

    def open(self) -> None:
        with self._lock:
            if self._experiment is None:
                self._experiment = self._opened()
                self._folder, self._ids = self._read_ids()
                self._write_ids()  # the folder's number must be known before a run is made with it

    def deliver(self, events: Sequence[Event]) -> None:
        try:
            self.open()
        except InputError as error:  # the run has begun: a server whose settings were changed is one that is away
            raise Outage(str(error)) from error
        with _translated(self._uri):
            points: dict[str, list[Metric]] = {}
            for event in events:
                if event["event"] == "metrics":
                    points.setdefault(event["key"], []).extend(_points(event))
                else:
                    self._send(points)
                    points = {}
                    getattr(self, f"_{event['event']}")(event)
            self._send(points)

    def _send(self, points: Mapping[str, list[Metric]]) -> None:
        for key, metrics in points.items():
            for i in range(0, len(metrics), POINTS_PER_CALL):
                self._client.log_batch(self._run_id(key, metrics[0].timestamp), metrics=metrics[i : i + POINTS_PER_CALL])

    def _start(self, event: Event) -> None:
        run_id = self._run_id(event["key"], event["time_ms"], event)
        run = self._client.get_run(run_id)
        if run.info.status != "RUNNING" and (run.info.end_time or 0) < event["time_ms"]:
            self._client.update_run(run_id, status="RUNNING")
        self._log_params(run_id, run.data.params, event["params"])

    def _tags(self, event: Event) -> None:
        tags = [RunTag(safe_key(name), safe_text(value, TAG_CHARACTERS)) for name, value in event["tags"].items()]
        for i in range(0, len(tags), PARAMS_PER_CALL):
            self._client.log_batch(self._run_id(event["key"], event["time_ms"]), tags=tags[i : i + PARAMS_PER_CALL])

    def _artifact(self, event: Event) -> None:
        if not Path(event["path"]).is_file():
            raise Refused(f"{event['path']} is not there any more", certain=True)
        self._client.log_artifact(self._run_id(event["key"], event["time_ms"]), event["path"], event["folder"] or None)

    def _register(self, event: Event) -> None:
        register_version(self._client, self._name, self._client.get_run(self._run_id(event["key"], event["time_ms"])), event)

    def _finish(self, event: Event) -> None:
        if event["key"] == BATCH:
            for run in self._open_children(self._run_id(BATCH, event["time_ms"])):
                self._client.set_terminated(run.info.run_id, event["status"], event["time_ms"])
        self._client.set_terminated(self._run_id(event["key"], event["time_ms"]), event["status"], event["time_ms"])

    # ----------------------------------------------------------------------------------- runs

    def _run_id(self, key: str, time_ms: int, start: Mapping[str, Any] = MappingProxyType({})) -> str:
        """Of the run under `key`: this folder's own, or one made now, as begun at `time_ms`. `start`: the event of its start, if that is known."""
        with self._lock:
            if key not in self._checked:
                run = self._known(key) or self._found(key) or self._made(key, time_ms, start)
                self._ids[key] = run.info.run_id
                self._write_ids()
                self._checked.add(key)
            return self._ids[key]

    def _known(self, key: str) -> Run | None:
        """The run of an earlier command, unless it was deleted at the server."""
        if key not in self._ids:
            return None
        try:
            run = self._client.get_run(self._ids[key])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run.info.lifecycle_stage == "active" else None

    def _found(self, key: str) -> Run | None:
        """A run that was made, but whose number did not come back."""
        condition = f"tags.`{RUN_TAG}` = '{self._tag(key)}'"
        found = self._client.search_runs([self._experiment_id], condition, ViewType.ACTIVE_ONLY, 2, ["attributes.start_time ASC"])
        return found[0] if found else None

    def _made(self, key: str, time_ms: int, start: Mapping[str, Any]) -> Run:
        tags = {RUN_TAG: self._tag(key)} | ({} if key == BATCH else {"mlflow.parentRunId": self._run_id(BATCH, time_ms)})
        tags |= {f"dpscale.{name}": safe_text(start[name], TAG_CHARACTERS) for name in ("stage", "name") if name in start}
        name = self._run_name if key == BATCH else safe_text(key, NAME_CHARACTERS)
        return self._client.create_run(self._experiment_id, time_ms, tags, name)

    def _tag(self, key: str) -> str:
        return hashlib.sha256(f"{self._folder} {key}".encode()).hexdigest()[:32]

    def _open_children(self, parent: str) -> list[Run]:
        condition = f"tags.`mlflow.parentRunId` = '{parent}' and attributes.status = 'RUNNING'"
        page = self._client.search_runs([self._experiment_id], condition, max_results=1000)
        runs = list(page)
        while page.token:
            page = self._client.search_runs([self._experiment_id], condition, max_results=1000, page_token=page.token)
            runs += page
        return runs

    def _log_params(self, run_id: str, known: Mapping[str, str], params: Mapping[str, Any]) -> None:
        """MLflow's params cannot change: a setting that a resumed command changed becomes the tag ``changed.<name>``."""
        texts = {safe_key(name): safe_text(value, PARAM_CHARACTERS) for name, value in params.items()}
        new = [Param(name, text) for name, text in texts.items() if name not in known]
        changed = [RunTag(safe_key(f"changed.{name}"), text) for name, text in texts.items() if known.get(name, text) != text]
        for i in range(0, len(new), PARAMS_PER_CALL):
            self._client.log_batch(run_id, params=new[i : i + PARAMS_PER_CALL])
        for i in range(0, len(changed), PARAMS_PER_CALL):
            self._client.log_batch(run_id, tags=changed[i : i + PARAMS_PER_CALL])

    # ---------------------------------------------------------------------------------- opening

    @property
    def _experiment_id(self) -> str:
        assert self._experiment is not None, "open() comes first"
        return self._experiment.experiment_id

    def _opened(self) -> Experiment:
        """The experiment, made if there is none. Raises InputError or Outage."""
        check_answers(self._uri)
        try:
            with _one_at_a_time(self._database.with_name("mlflow.lock")) if self._uri.startswith("sqlite") else nullcontext():
                self._client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
                return self._open_experiment(self._database.with_name("mlartifacts").as_uri() if self._is_local else None)
        except MlflowException as error:
            if not self._uri.startswith("sqlite") and error.error_code not in _SETTINGS:
                raise Outage(f"MLflow at {shown(self._uri)} does not answer ({_first_line(error)})") from error
            raise self._cannot_be_opened(error) from error
        except (InputError, Outage):
            raise
        except Exception as error:  # drivers of many databases, each with errors of its own
            raise self._cannot_be_opened(error) from error

    def _cannot_be_opened(self, error: Exception) -> InputError:
        return InputError(
            f"tracking.uri: MLflow at {shown(self._uri)} cannot be opened ({type(error).__name__}: {_first_line(error)}); "
            "give another URI, or set tracking.kind = 'file' or 'none'"
        )

    def _open_experiment(self, artifacts: str | None) -> Experiment:
        experiment = self._client.get_experiment_by_name(self._name)
        if experiment is None:
            experiment = self._new_experiment(artifacts)
        if experiment.lifecycle_stage != "active":
            raise InputError(f"tracking.experiment: {self._name!r} has been deleted at {shown(self._uri)}; restore it, or choose another name")
        return experiment

    def _new_experiment(self, artifacts: str | None) -> Experiment:
        try:
            return self._client.get_experiment(self._client.create_experiment(self._name, artifact_location=artifacts))
        except MlflowException as error:
            experiment = self._client.get_experiment_by_name(self._name)  # another command was first
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or experiment is None:
                raise
            return experiment

    def _write_ids(self) -> None:
        write_json(self._ids_path, self._identity() | {"folder": self._folder, "runs": self._ids})

    def _identity(self) -> dict[str, str]:
        return {"uri": shown(self._uri), "experiment_id": self._experiment_id}

    def _read_ids(self) -> tuple[str, dict[str, str]]:
        """The folder's own number, and ids of its runs if they lie in the same store and experiment."""
        try:
            stored = json.loads(self._ids_path.read_text())
        except FileNotFoundError:
            stored = {}
        same = all(stored.get(name) == value for name, value in self._identity().items())
        return stored.get("folder") or uuid.uuid4().hex, stored["runs"] if same else {}


def _points(event: Event) -> list[Metric]:
    return [Metric(safe_key(name), value, event["time_ms"], event["step"]) for name, value in event["values"].items()]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300]


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """MLflow's errors as what they mean for who sends: again later, or never again."""
    try:
        yield
    except MlflowException as error:
        if error.error_code in _CERTAIN | _DOUBTFUL:
            raise Refused(_first_line(error), error.error_code in _CERTAIN) from error
        raise Outage(f"MLflow at {shown(uri)} does not answer ({_first_line(error)})") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refused(f"{type(error).__name__}: {error}", certain=False) from error


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Two commands that create the same new database at once would break each other's migration."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
