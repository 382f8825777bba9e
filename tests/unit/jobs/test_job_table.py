"""What `dpscale jobs list` shows."""

from __future__ import annotations

import io

from ray.job_submission import JobDetails, JobStatus, JobType
from rich.console import Console

from jobs.job_table import job_table


def _shown(*jobs: JobDetails) -> str:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    console.print(job_table(jobs, now_s=1_000_100.0))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_newest_first_with_time_and_exit_status():
    old = JobDetails(
        type=JobType.SUBMISSION, submission_id="dpscale-a-1", status=JobStatus.FAILED, entrypoint="python -m jobs.submitted", driver_exit_code=1,
        start_time=1_000_000_000, end_time=1_000_075_000, metadata={"dpscale_job": "personalize", "dpscale_run_folder": "/shared/runs/a"},
    )  # fmt: skip
    new = JobDetails(
        type=JobType.SUBMISSION, submission_id="raysubmit_2", status=JobStatus.RUNNING, entrypoint="dpscale demo", start_time=1_000_060_000
    )
    lines = _shown(old, new).splitlines()
    assert lines[0].split() == ["id", "job", "run", "folder", "status", "started", "took", "exit"]
    assert [line.split()[0] for line in lines[1:]] == ["raysubmit_2", "dpscale-a-1"]
    assert "dpscale demo" in lines[1]
    assert "0:40" in lines[1]
    assert all(text in lines[2] for text in ("personalize", "/shared/runs/a", "FAILED", "1:15", " 1"))


def test_what_others_wrote_cannot_drive_the_terminal():
    hostile = JobDetails(type=JobType.SUBMISSION, submission_id="x", status=JobStatus.PENDING, entrypoint="a\x1b]0;owned\x07 [red]b[/red]\nc")
    shown = _shown(hostile)
    assert "\x1b" not in shown
    assert "[red]b[/red]?c" in shown
