"""`dpscale JOB CONFIG --submit ADDRESS`: the same job on a Ray cluster, with this code and these settings."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dpscale.config.load import resolved
from dpscale.config.schema import Config
from dpscale.data.types import InputError
from jobs.cluster_client import check_versions, connect
from jobs.cluster_paths import with_absolute_paths
from jobs.follow import follow
from jobs.job_package import write_package
from jobs.job_request import entrypoint, runtime_env
from jobs.secret_names import secret_names
from jobs.secret_values import refuse_passwords, refuse_secret_values, secret_values
from jobs.submission import Submission, new_id
from jobs.submitted import CONFIG_FILE, SENDER_FILE
from jobs.versions import own_versions
from jobs.working_tree import checkout

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient


def run(job: str, config: Config, address: str, flags: tuple[str, ...] = (), wait: bool = True, allow_unauthenticated: bool = False) -> int:
    """Exit status: the job's, or 0 without `wait`. Raises InputError before anything is sent."""
    client = connect(address, allow_unauthenticated)
    check_versions(client)
    return send(client, Submission(job, with_absolute_paths(config), flags), wait)


def send(client: JobSubmissionClient, submission: Submission, wait: bool) -> int:
    metadata = submission.metadata()
    for other in client.list_jobs():
        if not other.status.is_terminal() and (other.metadata or {}).get("dpscale_run_folder") == metadata["dpscale_run_folder"]:
            raise InputError(f"{metadata['dpscale_run_folder']}: job {other.submission_id} is at work there; follow it with: dpscale jobs logs ID")
    submission_id = new_id(submission.config)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "job.zip"
        number = write_package(package, checkout(), _sender(submission), secret_values(os.environ))
        environment = runtime_env(package, submission.config.ray.submit, os.environ)
        for place, text in {"the settings": json.dumps(metadata), "ray.submit.forward": json.dumps(environment)}.items():
            refuse_passwords(place, text)
            refuse_secret_values(place, text.encode(), secret_values(os.environ))
        print(f"sending {number} files, {package.stat().st_size / 2**20:.1f} MiB, to {client.get_address()}", flush=True)
        client.submit_job(entrypoint=entrypoint(submission_id, submission), submission_id=submission_id, runtime_env=environment, metadata=metadata)
    print(f"job {submission_id}\nfollow: dpscale jobs logs {submission_id} --address {client.get_address()}", flush=True)
    return follow(client, submission_id) if wait else 0


def _sender(submission: Submission) -> dict[str, bytes]:
    sender = {"versions": own_versions().as_dict(), "secrets": secret_names(submission.config, os.environ)}
    return {CONFIG_FILE: json.dumps(resolved(submission.config)).encode(), SENDER_FILE: json.dumps(sender).encode()}
