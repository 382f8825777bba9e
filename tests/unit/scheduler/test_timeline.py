from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from dpscale.config.schema import SchedulerConfig
from dpscale.scheduler.journal import Journal, Opening, segments
from dpscale.scheduler.messages import ActorReady, RefreshDone, Role, SliceDone, Submitted, WorkFailed
from dpscale.scheduler.timeline import trace
from tests.unit.scheduler.many_jobs import simulated, write_journal
from tests.unit.scheduler.many_videos import WORK


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


def test_refreshes_that_share_calls_have_rows_of_their_own(tmp_path: Path) -> None:
    opening = Opening(SchedulerConfig(kind="fifo", refresh_together=2), {}, None)
    begun = [
        ActorReady(0, Role.REFRESH), ActorReady(1, Role.FIELD), ActorReady(2, Role.FIELD),
        Submitted("a", WORK, performer="ann"), Submitted("b", WORK, performer="ann"),
        SliceDone("a", 0, 2, 0, 20, True, True, False), SliceDone("b", 0, 2, 0, 20, True, True, False),
        RefreshDone("a", 1, 1), RefreshDone("b", 1, 1),
    ]  # fmt: skip
    journal = Journal(tmp_path / "journal.jsonl", opening, 0.0)
    for at, event in enumerate(begun):
        journal.append(event, float(at))
    journal.sync()
    bars = [event for event in trace(segments(tmp_path / "journal.jsonl"))["traceEvents"] if event.get("cat") == RefreshDone.__name__]
    assert [(bar["name"], bar["tid"], bar["ts"] / 1e6, bar["dur"] / 1e6) for bar in bars] == [("a", 0, 5, 2), ("b", 1, 6, 2)]
