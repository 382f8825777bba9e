"""The first second of a submitted job, in a process of its own as on the cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dpscale.config.load import check, resolved
from jobs.submitted import CONFIG_FILE, SENDER_FILE
from jobs.versions import own_versions

ROOT = Path(__file__).parents[3]


def _start(folder: Path, versions: dict[str, str | None], secrets: list[str]) -> subprocess.CompletedProcess[str]:
    """`dpscale report` of an empty run: needs no Ray."""
    config = check(
        {"run": {"root": str(folder), "name": "batch"}, "performers": [{"kind": "rendered", "name": "dancer", "performer_seed": 1_000_001}]}
    )
    (folder / CONFIG_FILE).write_text(json.dumps(resolved(config)))
    (folder / SENDER_FILE).write_text(json.dumps({"versions": versions, "secrets": secrets}))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MY_KEY": "pl4nted-v4lue"}
    command = [sys.executable, "-m", "jobs.submitted", "dpscale-batch-1", "report"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_the_job_runs_with_the_settings_that_came_with_it(tmp_path: Path):
    done = _start(tmp_path, own_versions().as_dict(), ["MY_KEY"])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "batch" / "report.html").is_file()
    assert "pl4nted" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("versions", "secrets", "message"),
    [
        ({"dpscale": "9.9.9"}, [], "dpscale: 9.9.9 here, 0.1.0 in the job's image. Use an image with dpscale 9.9.9, or submit from dpscale 0.1.0"),
        ({"ray": "2.59.0"}, [], "Ray: 2.59 here, "),
        ({}, ["AWS_SECRET_ACCESS_KEY_OF_NOBODY"], "$AWS_SECRET_ACCESS_KEY_OF_NOBODY is not set here: set it on every node"),
        ({}, ["MY_KEY", "MLFLOW_TRACKING_TOKEN_OF_NOBODY"], "or one of MLflow's that is set where the job was sent"),
    ],
)
def test_another_image_or_a_missing_secret_ends_it_with_status_2(versions: dict[str, str | None], secrets: list[str], message: str, tmp_path: Path):
    done = _start(tmp_path, {**own_versions().as_dict(), **versions}, secrets)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "batch").exists()
