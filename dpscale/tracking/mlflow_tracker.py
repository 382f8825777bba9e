"""MLflow: one parent run per batch, a child per performer and stage. The only import of mlflow.

`MlflowClient` throughout, never the fluent interface, which has one active run per process. Run ids are
kept in <run>/tracking.json, so that a resumed command continues the same runs.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Before the import: no usage reports to anyone, and a dead server must be noticed in seconds, not minutes.
for _variable, _value in (("MLFLOW_DISABLE_TELEMETRY", "true"), ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"), ("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")):
    os.environ.setdefault(_variable, _value)

from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Experiment, Metric, Param, RunTag  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

from dpscale.config.schema import Config  # noqa: E402
from dpscale.data.checkpoint import write_json  # noqa: E402
from dpscale.data.layout import RunLayout  # noqa: E402
from dpscale.data.types import InputError  # noqa: E402
from dpscale.tracking.tracker import BATCH, Status, flat_params, run_key  # noqa: E402

PARAMS_PER_CALL = 100
PARAM_CHARACTERS = 6000
"""MLflow's limits."""


class MlflowTracker:
    """Implements Tracker. One process at a time writes for one run folder.

    Without `tracking.uri` the store is SQLite at <run.root>/mlflow.db, its artifacts lie in <run.root>/mlartifacts.
    Raises InputError where the store cannot be opened."""

    def __init__(self, config: Config, layout: RunLayout) -> None:
        self._ids_path = layout.root / "tracking.json"
        self._uri = config.tracking.uri or f"sqlite:///{layout.mlflow_db}"
        _refuse_relative(self._uri)
        for name in ("alembic", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.WARNING)  # each table of a new database is a line otherwise
        try:
            layout.root.mkdir(parents=True, exist_ok=True)
            artifacts = None if config.tracking.uri else layout.mlflow_db.with_name("mlartifacts").as_uri()
            with _one_at_a_time(layout.mlflow_db.with_name("mlflow.lock")):
                self._client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
                self._experiment = self._open_experiment(config.tracking.experiment, artifacts)
            self._ids = self._read_ids()
            self._open(BATCH, config.run.name, flat_params(config))
        except InputError:
            raise
        except Exception as error:  # drivers of many databases and servers, each with errors of its own
            raise InputError(
                f"tracking.uri: MLflow at {self._uri} cannot be opened ({type(error).__name__}: {error}); "
                "give a reachable URI, or set tracking.kind = 'file' or 'none'"
            ) from error

    def start(self, stage: str, name: str, params: Mapping[str, Any]) -> str:
        key = run_key(stage, name)
        self._open(key, key, params, {"dpscale.stage": stage, "dpscale.name": name})
        return key

    def metrics(self, key: str, values: Mapping[str, float], step: int) -> None:
        now_ms = time.time_ns() // 1_000_000
        self._client.log_batch(self._ids[key], metrics=[Metric(name, float(value), now_ms, step) for name, value in values.items()])

    def artifact(self, key: str, path: Path, folder: str = "") -> None:
        self._client.log_artifact(self._ids[key], str(path), folder or None)

    def finish(self, key: str, status: Status) -> None:
        if key == BATCH:
            for run_id in self._open_children():
                self._client.set_terminated(run_id, status)
        self._client.set_terminated(self._ids[key], status)

    def flush(self) -> None:
        pass

    def _open_experiment(self, name: str, artifacts: str | None) -> Experiment:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            return self._client.get_experiment(self._client.create_experiment(name, artifact_location=artifacts))
        if experiment.lifecycle_stage != "active":
            raise InputError(f"tracking.experiment: {name!r} has been deleted at {self._uri}; restore it, or choose another name")
        return experiment

    def _read_ids(self) -> dict[str, str]:
        """Ids of this run folder's runs, if they lie in the same store and experiment."""
        try:
            stored = json.loads(self._ids_path.read_text())
        except FileNotFoundError:
            return {}
        same = stored["uri"] == self._uri and stored["experiment_id"] == self._experiment.experiment_id
        return stored["runs"] if same else {}

    def _open(self, key: str, run_name: str, params: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> None:
        if not self._reopen(key):
            parent = {} if key == BATCH else {"mlflow.parentRunId": self._ids[BATCH]}
            run = self._client.create_run(self._experiment.experiment_id, run_name=run_name, tags={**parent, **(tags or {})})
            self._ids[key] = run.info.run_id
            write_json(self._ids_path, {"uri": self._uri, "experiment_id": self._experiment.experiment_id, "runs": self._ids})
        self._log_params(self._ids[key], params)

    def _reopen(self, key: str) -> bool:
        """Continues the run of an earlier command; False if there is none (any more)."""
        if key not in self._ids:
            return False
        try:
            deleted = self._client.get_run(self._ids[key]).info.lifecycle_stage != "active"
        except MlflowException:
            return False
        if not deleted:
            self._client.update_run(self._ids[key], status="RUNNING")
        return not deleted

    def _log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """MLflow's params cannot change: a setting that a resumed command changed becomes the tag ``changed.<name>``."""
        known = self._client.get_run(run_id).data.params
        texts = {name: str(value)[:PARAM_CHARACTERS] for name, value in params.items()}
        new = [Param(name, text) for name, text in texts.items() if name not in known]
        changed = [RunTag(f"changed.{name}", text) for name, text in texts.items() if known.get(name, text) != text]
        for i in range(0, len(new), PARAMS_PER_CALL):
            self._client.log_batch(run_id, params=new[i : i + PARAMS_PER_CALL])
        if changed:
            self._client.log_batch(run_id, tags=changed)

    def _open_children(self) -> list[str]:
        condition = f"tags.`mlflow.parentRunId` = '{self._ids[BATCH]}' and attributes.status = 'RUNNING'"
        return [run.info.run_id for run in self._client.search_runs([self._experiment.experiment_id], condition, max_results=50_000)]


def _refuse_relative(uri: str) -> None:
    """Workers run in folders of their own, so a relative database would be another one in each."""
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        raise InputError(f"tracking.uri = {uri!r} is relative; give an absolute path (sqlite:////...), or leave it out")


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Two commands that create the same new database at once would break each other's migration."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
