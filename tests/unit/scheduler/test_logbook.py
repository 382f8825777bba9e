from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from dpscale.scheduler.logbook import Logbook, journal_path, status_path, wishes_path
from dpscale.scheduler.messages import Cancelled, Event, Paused, Reprioritized, Role, Submitted, VideoWork
from dpscale.scheduler.records import Phase
from dpscale.scheduler.wishes import put_wish
from tests.unit.scheduler.many_jobs import NAMES, OPENING, simulated, write_journal

WORK = VideoWork(50, 1000, 400, 4)


def told(folder: Path, opening=OPENING) -> dict[str, list[Event]]:
    """The first words of a new driver about each video."""
    book = Logbook(folder, opening, 10_000.0)
    return {name: list(book.first_words(Submitted(name, WORK))) for name in NAMES}


@pytest.fixture
def killed(tmp_path: Path) -> tuple[Path, dict[str, int]]:
    """A folder whose driver was killed half-way; failures of each video until then."""
    _, course = simulated()
    half = len(course.events) // 2
    write_journal(journal_path(tmp_path), course, half, finished=False)
    scheduler = OPENING.scheduler()
    for at, event in course.events[:half]:
        scheduler.handle(event, at)
    return tmp_path, {name: video.failures for name, video in scheduler.videos.items()}


def test_failures_outlive_the_driver(killed: tuple[Path, dict[str, int]]) -> None:
    folder, failures = killed
    assert max(failures.values()) > 0
    assert {name: words[0].failures for name, words in told(folder).items()} == failures
    assert {name: words[0].failures for name, words in told(folder).items()} == failures, "the second driver died before it began"


def test_another_fingerprint_begins_afresh(killed: tuple[Path, dict[str, int]]) -> None:
    folder, failures = killed
    bad = max(failures, key=failures.__getitem__)
    other = dataclasses.replace(OPENING, fingerprints={**OPENING.fingerprints, bad: "other settings"})
    words = told(folder, other)
    assert words[bad][0].failures == 0
    assert {name: one[0].failures for name, one in words.items() if name != bad} == {name: one for name, one in failures.items() if name != bad}


def test_a_batch_that_came_to_its_end_begins_afresh(tmp_path: Path) -> None:
    _, course = simulated()
    write_journal(journal_path(tmp_path), course)
    assert all(words == [Submitted(name, WORK)] for name, words in told(tmp_path).items())


def test_wishes_outlive_the_driver(tmp_path: Path) -> None:
    book, scheduler = Logbook(tmp_path, OPENING, 0.0), OPENING.scheduler()
    for event in [*(Submitted(name, WORK) for name in NAMES), Paused(NAMES[0]), Cancelled(NAMES[1]), Reprioritized(NAMES[2], 7)]:
        book.taken_in(event, 1.0)
        scheduler.handle(event, 1.0)
    book.close(scheduler, 2.0)
    words = told(tmp_path)
    assert words[NAMES[0]][1:] == [Paused(NAMES[0])]
    assert words[NAMES[1]][1:] == [Cancelled(NAMES[1])]
    assert words[NAMES[2]][1:] == [Reprioritized(NAMES[2], 7)]
    assert words[NAMES[3]][1:] == []


def test_an_unreadable_journal_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal_path(tmp_path).write_text('{"t": 0, "opened": {"kind": "by horoscope"}, "fingerprints": {}, "rebalance_s": null}\n')
    assert all(words == [Submitted(name, WORK)] for name, words in told(tmp_path).items())
    assert "cannot be read" in caplog.text
    assert (tmp_path / "journal.unreadable").exists()


def test_wishes_are_taken_once_and_in_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    book = Logbook(tmp_path, OPENING, 0.0)
    wishes = [Paused("a"), Reprioritized("b", 3), Cancelled("a")]
    for wish in wishes:
        put_wish(wishes_path(tmp_path), wish)
    strange = ["not JSON", '{"wish": "explode", "video": "a"}', '{"wish": "pause", "video": 3}', '{"wish": "reprioritize", "video": "a"}']
    for number, text in enumerate(strange):
        (wishes_path(tmp_path) / f"9{number}.json").write_text(text)
    assert book.wishes() == wishes
    assert caplog.text.count("is not a wish") == 4
    assert book.wishes() == []


def test_the_status_tells_how_far_everything_is(tmp_path: Path) -> None:
    _, course = simulated()
    book, scheduler = Logbook(tmp_path, OPENING, course.events[0][0]), OPENING.scheduler()
    for at, event in course.events[: len(course.events) // 2]:
        scheduler.handle(event, at)
    book.measured(Role.FIELD, 200, 20.0)
    book.lost(NAMES[0], 12.3456)
    book.show(scheduler, 300.0)
    assert json.loads(status_path(tmp_path).read_text())["eta_s"] is None, "nothing is known of the diffusion model yet"
    book.measured(Role.REFRESH, 100, 50.0)
    book.show(scheduler, 300.0)
    shown = json.loads(status_path(tmp_path).read_text())
    assert sum(shown["phases"].values()) == shown["num_videos"] == len(NAMES)
    left = {
        name: 0.1 * video.steps_left + 0.5 * video.diffusion_work_left for name, video in scheduler.videos.items() if video.ended is None
    }
    assert {video["name"]: video["left_s"] for video in shown["videos"] if video["left_s"] is not None} == pytest.approx(left, abs=0.06)
    assert shown["eta_s"] >= max(left.values()) - 0.06
    assert next(video for video in shown["videos"] if video["name"] == NAMES[0])["l1"] == 12.346
    failed = [video["name"] for video in shown["videos"] if video["phase"] == Phase.FAILED.value]
    assert failed == [name for name, video in scheduler.videos.items() if video.ended is Phase.FAILED]
    busy = {role: sum(len(actor.videos) > 0 for actor in scheduler.actors.values() if actor.role.value == role) for role in ("field", "refresh")}
    assert {role: counts["busy"] for role, counts in shown["actors"].items()} == busy
