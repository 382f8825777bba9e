"""The command and the environment of a submitted job. Both can be read by everybody on the cluster."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from dpscale.config.submit import SubmitConfig
from dpscale.data.types import InputError
from jobs.submission import Submission
from jobs.working_tree import CHECKOUT

STOP_WAIT_S = 60
"""Between SIGTERM and SIGKILL of a stopped job: longer than Ray's 3 s, so that actors end and MLflow hears of it."""


def entrypoint(submission_id: str, submission: Submission) -> str:
    return shlex.join([submission.config.ray.submit.python, "-m", "jobs.submitted", submission_id, submission.job, *submission.flags])


def runtime_env(package: Path, settings: SubmitConfig, environment: Mapping[str, str]) -> dict[str, object]:
    forwarded = {name: environment[name] for name in settings.forward if environment.get(name)}
    pip = {"pip": {"packages": pinned(CHECKOUT), "pip_install_options": ["--no-deps", "--disable-pip-version-check"]}} if settings.install else {}
    return {"working_dir": str(package), "env_vars": {**forwarded, "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}, **pip}


def pinned(tree: Path) -> Sequence[str]:
    """Every package of a whole environment, hence --no-deps; Ray itself is the cluster's. Raises InputError."""
    try:
        lines = [line for name in ("constraints.txt", "requirements-data.txt") for line in (tree / name).read_text().splitlines()]
    except FileNotFoundError as error:
        raise InputError(f"ray.submit.install: {error.filename} is not here: submit from a checkout of dpscale") from error
    return [line for line in lines if "==" in line and not line.startswith(("#", "ray=="))]
