"""`dpscale jobs list|logs|stop|retry`: what was submitted to a Ray cluster."""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING

from rich.console import Console

from dpscale.data.types import InputError
from jobs.cluster_client import check_versions, connect
from jobs.follow import follow
from jobs.job_request import STOP_WAIT_S
from jobs.job_table import job_table
from jobs.submission import Submission, checked_id
from jobs.submit import send

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"


def run(arguments: argparse.Namespace) -> int:
    address = arguments.address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    client = connect(address, arguments.allow_unauthenticated)
    if arguments.action == "list":
        Console().print(job_table([job for job in client.list_jobs() if job.submission_id], time.time()))
        return 0
    job = _job(client, arguments.id)
    if arguments.action == "logs":
        return follow(client, arguments.id)
    if arguments.action == "stop":
        return _stop(client, arguments.id)
    check_versions(client)
    return send(client, Submission.of(arguments.id, job.metadata or {}), not arguments.no_wait)


def _stop(client: JobSubmissionClient, submission_id: str) -> int:
    """Returns when the job has ended: what it had finished or saved by then is kept."""
    client.stop_job(submission_id)
    until = time.monotonic() + STOP_WAIT_S + 30
    while not (status := client.get_job_status(submission_id)).is_terminal():
        if time.monotonic() > until:
            raise InputError(f"{submission_id}: did not stop in {STOP_WAIT_S + 30} s; see `dpscale jobs logs {submission_id}`")
        time.sleep(0.5)
    print(f"{submission_id}: {status.lower()}" + ("" if status == "SUCCEEDED" else f". Resume with: dpscale jobs retry {submission_id}"))
    return 0


def _job(client: JobSubmissionClient, submission_id: str) -> JobDetails:
    try:
        return client.get_job_info(checked_id(submission_id))
    except RuntimeError as error:
        raise InputError(f"{submission_id}: the cluster knows no such job; `dpscale jobs list` shows them") from error
