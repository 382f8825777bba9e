"""Seconds add up over all commands that worked in a run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpscale.data.layout import RunLayout
from jobs.stage_times import add_seconds, measured, stage_seconds


def test_seconds_add_up(tmp_path: Path):
    layout = RunLayout(tmp_path)
    assert stage_seconds(layout) == {}
    add_seconds(layout, "finetune", 1.5)
    add_seconds(layout, "finetune", 2.25)
    add_seconds(layout, "optimize", 1)
    assert stage_seconds(layout) == {"finetune": 3.75, "optimize": 1}


def test_a_failed_stage_is_not_counted(tmp_path: Path):
    with pytest.raises(KeyError), measured(RunLayout(tmp_path), "report"):
        raise KeyError
    assert stage_seconds(RunLayout(tmp_path)) == {}
    with measured(RunLayout(tmp_path), "report"):
        pass
    assert stage_seconds(RunLayout(tmp_path)).keys() == {"report"}
