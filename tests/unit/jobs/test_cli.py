"""The command line as a user meets it: exit status and messages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.arguments import JOBS, parser
from jobs.batch_arguments import WISHES
from jobs.cli import main


def test_help_names_every_job(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as raised:
        main(["--help"])
    assert raised.value.code == 0
    shown = capsys.readouterr().out
    assert JOBS.keys() <= set(shown.split())


def test_help_needs_neither_torch_nor_ray():
    code = (
        "import sys; import jobs.cli; from jobs.arguments import parser; parser().format_help(); "
        "print(sorted({'torch', 'ray', 'mlflow', 'numpy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("job", JOBS)
def test_every_job_has_an_entry_point(job: str):
    text = (Path(__file__).parents[3] / "jobs" / f"{'wish' if job in WISHES else job}.py").read_text()
    assert "def run(" in text or "import run" in text
    needed = {"inspect": ["runs"], "ingest": ["runs"], "jobs": ["list"], "export": ["--performer", "ann", "--to", "model"]}
    needed |= {key: ["runs/demo"] for key in ("status", "timeline", *WISHES)} | {"reprioritize": ["runs/demo", "--priority", "2"]}
    assert parser().parse_args([job, *needed.get(job, [])]).job == job


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--set", "joint.stepps=3"], "joint.stepps = 3: there is no such setting; did you mean joint.steps?"),
        (["demo", "--set", "joint.steps=0"], "joint.steps = 0: must be a whole number from 1 to 100_000_000"),
        (["demo", "--set", "diffusion.preset=big"], "diffusion.preset = 'big': must be one of tiny, sd21, sd15"),
        (["demo", "--set", "joint.steps"], "write key=value"),
        (["demo", "nowhere.toml"], "nowhere.toml: there is no such config file"),
        (["personalize"], "no performers: add --performer NAME=clip.mp4"),
        (["personalize", "--performer", "clip.mp4"], "--performer clip.mp4: write NAME=CLIP.mp4"),
        (["personalize", "--performer", "Ann B=clip.mp4"], "performers.0.name = 'Ann B': must be a text of the form"),
        (["personalize", "--performer", "a=x.mp4", "--performer", "a=y.mp4"], "the name 'a' is used twice"),
        (["personalize", "--performer", "a=x.mp4", "--drive", "b.mp4", "--drive", "c/b.mp4"], "the name 'b' is used twice"),
    ],
)
def test_wrong_settings_end_with_status_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_job_ends_with_status_2(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as raised:
        main(["personalise"])
    assert raised.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_dry_run_prints_settings_and_plan_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["demo", "--dry-run", "--out", str(tmp_path / "run"), "--set", "joint.steps=7"]) == 0
    shown = capsys.readouterr().out
    settings, _ = json.JSONDecoder().raw_decode(shown)
    assert settings["joint"]["steps"] == 7
    assert f"run folder: {tmp_path / 'run'}" in shown
    assert "man--dance" in shown
    assert "to do" in shown
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("stop", "status"), [(KeyboardInterrupt, 130), ("sigterm", 143), (OSError(28, "No space left on device"), 1)])
def test_a_stopped_job_says_how_to_resume(stop: object, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from jobs import dry_run
    from jobs.termination import Terminated

    def stopped(config: object) -> int:
        raise Terminated if stop == "sigterm" else stop

    monkeypatch.setattr(dry_run, "run", stopped)
    assert main(["demo", "--dry-run", "--out", "a b"]) == 2  # a run name with a blank is refused before
    assert main(["demo", "--dry-run", "--out", "ab"]) == status
    assert "Resume with: dpscale demo --dry-run --out ab" in capsys.readouterr().err
