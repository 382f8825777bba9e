"""The lines that a person sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpscale.config.load import load
from dpscale.data.layout import RunLayout
from dpscale.data.types import Outcome
from jobs.progress import Progress, clock
from jobs.settings import CONFIGS


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00"), (75.2, "1:15"), (59.9, "1:00"), (3723, "1:02:03")])
def test_clock(seconds: float, text: str):
    assert clock(seconds) == text


def test_a_stage_ends_with_counts_and_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    progress = Progress(load(CONFIGS / "demo.toml"), RunLayout(tmp_path))
    outcomes = [Outcome("finetune", "a", 1.0), Outcome("finetune", "b", 0.0, skipped=True), Outcome("finetune", "c", 1.0, error="[x] no person")]
    with progress.stage("finetune"):
        pass
    progress.ended("finetune", outcomes, 75.0)
    progress.ended("optimize", [], 0.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].split(None, 2) == ["finetune", "1:15", "1 done, 1 already there, 1 failed"]
    assert lines[-2] == "  c: [x] no person"
    assert lines[-1].endswith("nothing to do")
