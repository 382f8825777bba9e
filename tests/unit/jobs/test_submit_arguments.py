"""Command lines that have to do with a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.arguments import JOBS, parser
from jobs.cli import main
from jobs.submit_arguments import SUBMITTABLE, submit_arguments


def test_what_can_be_submitted_is_a_job():
    assert set(SUBMITTABLE) < JOBS.keys()
    for job in SUBMITTABLE:
        parsed = parser().parse_args([job, "--submit", "http://head:8265", "--no-wait"])
        assert submit_arguments(parsed) == dict(address="http://head:8265", flags=(), wait=False, allow_unauthenticated=False)


@pytest.mark.parametrize("flag", ["--no-wait", "--allow-unauthenticated"])
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_flags_of_a_submission_need_a_cluster(flag: str, more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "run"
    assert main(["demo", flag, "--out", str(out), *more]) == 2
    assert f"{flag} goes with --submit: name the cluster (--submit http://HEAD:8265), or leave {flag} out" in capsys.readouterr().err
    assert not out.exists()


def test_flags_of_the_job_travel():
    assert submit_arguments(parser().parse_args(["demo", "--submit", "h", "--retry-quarantined"]))["flags"] == ("--retry-quarantined",)


@pytest.mark.parametrize("words", [["list"], ["logs", "id"], ["stop", "id"], ["retry", "id", "--no-wait"]])
def test_jobs_has_four_actions(words: list[str]):
    parsed = parser().parse_args(["jobs", *words, "--address", "http://head:8265"])
    assert (parsed.job, parsed.action, parsed.address) == ("jobs", words[0], "http://head:8265")


def test_a_cluster_that_is_not_there_ends_with_status_2(capsys: pytest.CaptureFixture[str]):
    assert main(["jobs", "list", "--address", "http://127.0.0.1:9"]) == 2
    assert "http://127.0.0.1:9: no Ray cluster answers there" in capsys.readouterr().err
    assert main(["demo", "--submit", "http://127.0.0.1:9"]) == 2
    assert "no Ray cluster answers there" in capsys.readouterr().err
