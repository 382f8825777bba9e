from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from dpscale.scheduler.journal import segments
from dpscale.scheduler.messages import WorkFailed
from dpscale.scheduler.timeline import trace
from tests.unit.scheduler.many_jobs import simulated, write_journal


def test_bars_are_what_the_actors_did(tmp_path: Path) -> None:
    scheduler, course = simulated()
    write_journal(tmp_path / "journal.jsonl", course)
    events = json.loads(json.dumps(trace(segments(tmp_path / "journal.jsonl"))))["traceEvents"]
    bars = [event for event in events if event["ph"] == "X"]
    assert sum(bar["dur"] for bar in bars) / 1e6 == pytest.approx(sum(course.busy_s.values()), rel=1e-3)
    assert {bar["name"] for bar in bars} == set(scheduler.videos)
    assert sum(bar["cat"] == WorkFailed.__name__ for bar in bars) == course.num_failures
    rows = sorted((bar["pid"], bar["tid"], bar["ts"], bar["ts"] + bar["dur"]) for bar in bars)
    assert all(one[:2] != two[:2] or one[3] <= two[2] + 2000 for one, two in itertools.pairwise(rows)), "an actor does one thing at a time"
    waiting = [event["args"] for event in events if event["ph"] == "C"]
    assert waiting[-1] == {"field": 0, "refresh": 0}
    assert max(args["field"] for args in waiting) > 0
