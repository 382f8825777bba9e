"""Submitted jobs as a table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from jobs.progress import clock

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

_STYLES = {"RUNNING": "cyan", "SUCCEEDED": "green", "FAILED": "red", "STOPPED": "yellow"}


def job_table(jobs: Sequence[JobDetails], now_s: float) -> Table:
    """The newest first. Jobs that came another way than `--submit` show their command."""
    table = Table(box=None, pad_edge=False)
    for name in ("id", "job", "run folder", "status", "started", "took", "exit"):
        table.add_column(name, overflow="fold")
    for job in sorted(jobs, key=lambda job: job.start_time or 0, reverse=True):
        metadata = job.metadata or {}
        start_s, end_s = (job.start_time or 0) / 1000, job.end_time / 1000 if job.end_time else now_s
        table.add_row(
            _plain(job.submission_id or ""),
            _plain(metadata.get("dpscale_job") or job.entrypoint),
            _plain(metadata.get("dpscale_run_folder", "-")),
            Text(job.status.value, _STYLES.get(job.status.value, "")),
            datetime.fromtimestamp(start_s).strftime("%Y-%m-%d %H:%M:%S") if start_s else "-",
            clock(end_s - start_s) if start_s else "-",
            "-" if job.driver_exit_code is None else str(job.driver_exit_code),
        )
    return table


def _plain(text: str) -> Text:
    """Others on the cluster wrote it: no markup, and no control characters that would drive the terminal."""
    return Text("".join(character if character.isprintable() else "?" for character in text))
