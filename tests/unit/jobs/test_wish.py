"""`dpscale pause`, `resume`, `cancel`, `reprioritize`, `status` and `timeline` on the record of a driver."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpscale.data.layout import RunLayout
from dpscale.scheduler.logbook import Logbook, wishes_path
from dpscale.scheduler.messages import (
    ActorReady,
    Cancelled,
    Paused,
    Reprioritized,
    Resumed,
    Role,
    SliceDone,
    StartSlice,
    Submitted,
    VideoWork,
    WorkFailed,
)
from dpscale.scheduler.wishes import take_wishes
from jobs.cli import main
from tests.unit.scheduler.many_jobs import NAMES, OPENING

WORK = VideoWork(50, 1000, 400, 4)


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, str, str]:
    """A run folder in which a driver is at work; a video that has failed for good, and one that is under way."""
    scheduler = OPENING.scheduler()
    book = Logbook(RunLayout(tmp_path).scheduling, OPENING, 0.0)

    def tell(event) -> StartSlice:
        book.taken_in(event, 1.0)
        starts = [command for command in scheduler.handle(event, 1.0) if isinstance(command, StartSlice)]
        return starts[0] if starts else None

    for name in NAMES:
        tell(Submitted(name, WORK))
    bad = tell(ActorReady(1, Role.FIELD))
    good = tell(WorkFailed(bad.video, bad.ticket, "no body in it", retry=False, actor_lost=False))
    tell(SliceDone(good.video, good.ticket, 50, 0, 30, True, True, False))
    book.show(scheduler, 2.0)
    return tmp_path, bad.video, good.video


def wishes(folder: Path) -> list:
    return take_wishes(wishes_path(RunLayout(folder).scheduling))


def test_wishes_reach_the_folder_of_the_run(run: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]) -> None:
    folder, bad, good = run
    for words in (["pause"], ["resume"], ["cancel"]):
        assert main([*words, str(folder), good]) == 0
    assert main(["reprioritize", str(folder), good, "--priority", "5"]) == 0
    assert wishes(folder) == [Paused(good), Resumed(good), Cancelled(good), Reprioritized(good, 5)]
    assert main(["pause", str(folder), "--all"]) == 0
    assert {wish.video for wish in wishes(folder)} == set(NAMES) - {bad}


@pytest.mark.parametrize("words", [["../../etc"], ["nobody--self"], []])
def test_only_videos_under_way_can_be_named(run: tuple[Path, str, str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    folder, bad, good = run
    assert main(["cancel", str(folder), *words]) == 2
    assert f"Under way in {folder}: " in (said := capsys.readouterr().err)
    assert good in said
    assert bad not in said
    assert wishes(folder) == []


def test_a_failed_video_is_not_under_way(run: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]) -> None:
    folder, bad, _ = run
    assert main(["pause", str(folder), bad]) == 2
    assert f"{bad}: no such video is under way" in capsys.readouterr().err


@pytest.mark.parametrize("job", ["pause", "status", "timeline"])
def test_a_folder_without_a_batch_is_named(job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([job, str(tmp_path), *(["--all"] if job == "pause" else [])]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_the_status_is_a_table_and_json(run: tuple[Path, str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, bad, good = run
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["status", str(folder)]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if "video-" in line}
    assert set(rows) == set(NAMES)
    assert "failed" in rows[bad]
    assert "refresh wanted" in rows[good]
    assert "50/1050" in rows[good]
    assert main(["status", str(folder)]) == 0
    assert "no word from the driver" in capsys.readouterr().out, "it wrote in 1970"
    assert main(["status", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["phases"]["failed"] == 1


def test_the_timeline_is_a_file(run: tuple[Path, str, str], tmp_path: Path) -> None:
    folder, bad, good = run
    assert main(["timeline", str(folder), "--out", str(tmp_path / "trace.json")]) == 0
    bars = [event for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"] if event["ph"] == "X"]
    assert [(bar["name"], bar["cat"]) for bar in bars] == [(bad, "WorkFailed"), (good, "SliceDone")]
