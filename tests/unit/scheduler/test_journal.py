from __future__ import annotations

from pathlib import Path

import pytest

from dpscale.scheduler.journal import Journal, segments
from dpscale.scheduler.messages import (
    ActorReady,
    Cancelled,
    NodeDraining,
    Paused,
    RefreshDone,
    RefreshStopped,
    Reprioritized,
    Resumed,
    Role,
    SliceDone,
    Submitted,
    Tick,
    VideoWork,
    WorkFailed,
)
from tests.unit.scheduler.many_jobs import OPENING, simulated, write_journal


def test_a_replayed_journal_gives_the_scheduler_again(tmp_path: Path) -> None:
    scheduler, course = simulated()
    assert {video.failures for video in scheduler.videos.values()} >= {0, 2}, "the course is rough enough to say something"
    write_journal(tmp_path / "journal.jsonl", course)
    (segment,) = segments(tmp_path / "journal.jsonl")
    assert segment.closed
    assert segment.opening == OPENING
    assert len(segment.events) == len(course.events)
    again = segment.end()
    for name, video in scheduler.videos.items():
        assert (again.videos[name].failures, again.videos[name].phase, again.videos[name].error) == (video.failures, video.phase, video.error)
        assert again.videos[name].finished_s == pytest.approx(video.finished_s, abs=2e-3)


EVENTS = [
    Submitted("a", VideoWork(1, 2, 3, 4), 20, "lab", -2, 17.5, 1),
    ActorReady(3, Role.REFRESH, "node"),
    NodeDraining("node"),
    SliceDone("a", 0, 1, 2, 3, True, False, False),
    RefreshDone("a", 1, 2),
    RefreshStopped("a", 1),
    WorkFailed("a", 2, 'Error: "ü"\nsecond line', True, False, True),
    Cancelled("a"),
    Paused("a"),
    Resumed("a"),
    Reprioritized("a", 4),
    Tick(),
]


def test_every_event_comes_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl", OPENING, 0.0)
    for event in EVENTS:
        journal.append(event, 1.25)
    journal.sync()
    (segment,) = segments(tmp_path / "journal.jsonl")
    assert segment.events == [(1.25, event) for event in EVENTS]
    assert not segment.closed


@pytest.mark.parametrize("lost", [1, 17, 60])
def test_a_torn_last_line_is_left_out_and_written_over(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, OPENING, 0.0)
    journal.append(Paused("a"), 1.0)
    journal.append(WorkFailed("a", 2, "x" * 100, True, False), 2.0)
    journal.sync()
    path.write_bytes(path.read_bytes()[:-lost])
    assert [event for _, event in segments(path)[0].events] == [Paused("a")]
    Journal(path, OPENING, 3.0).close(4.0, finished=True)
    first, second = segments(path)
    assert [event for _, event in first.events] == [Paused("a")]
    assert (first.closed, second.closed) == (False, True)


def test_no_journal_has_no_segments(tmp_path: Path) -> None:
    assert segments(tmp_path / "none.jsonl") == []


def test_an_unknown_event_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path, OPENING, 0.0).close(0.0, finished=False)
    with path.open("a") as file:
        file.write('{"t": 1.0, "event": "Exploded"}\n')
    with pytest.raises(ValueError, match="does not know"):
        segments(path)
