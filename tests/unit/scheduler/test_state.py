from __future__ import annotations

from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dpscale.config.schema import SchedulerConfig
from dpscale.scheduler.messages import (
    ActorReady,
    Command,
    Event,
    Finish,
    RefreshDone,
    ReplaceActor,
    Role,
    SliceDone,
    StartRefresh,
    StartSlice,
    Submitted,
    VideoWork,
    WorkFailed,
)  # fmt: skip
from dpscale.scheduler.policy import POLICIES, Fifo, make_policy
from dpscale.scheduler.state import Phase, Scheduler

WORK = VideoWork(warm_up_steps=2, steps=8, refresh_interval=4, num_refreshes=3)


def scheduler(max_failures: int = 1) -> Scheduler:
    """One refresh worker (0), one field worker (1)."""
    made = Scheduler(Fifo(), max_failures)
    made.handle(ActorReady(0, Role.REFRESH), 0.0)
    made.handle(ActorReady(1, Role.FIELD), 0.0)
    return made


def slice_done(start: StartSlice, steps: int, refreshes: int, wanted: bool = False, finished: bool = False) -> SliceDone:
    return SliceDone(start.video, start.ticket, steps, refreshes, 20, wanted, wanted, finished)


def test_a_video_alternates_slices_and_refreshes() -> None:
    core = scheduler()
    (first,) = core.handle(Submitted("a", WORK), 0.0)
    assert first == StartSlice("a", 1, 0)
    (refresh,) = core.handle(slice_done(first, 2, 0, wanted=True), 1.0)
    assert refresh == StartRefresh("a", 0, 1)
    (second,) = core.handle(RefreshDone("a", refresh.ticket, 1), 2.0)
    assert second == StartSlice("a", 1, 2)
    assert core.handle(slice_done(second, 10, 3, finished=True), 3.0) == [Finish("a", None)]
    assert core.is_finished
    assert core.videos["a"].finished_s == 3.0


def test_the_field_worker_serves_another_video_during_a_refresh() -> None:
    core = scheduler()
    (first,) = core.handle(Submitted("a", WORK), 0.0)
    assert core.handle(Submitted("b", WORK), 0.0) == []
    commands = core.handle(slice_done(first, 2, 0, wanted=True), 1.0)
    assert commands == [StartSlice("b", 1, 0), StartRefresh("a", 0, 1)]


def test_a_lost_worker_is_replaced_and_the_video_tried_again() -> None:
    core = scheduler()
    (first,) = core.handle(Submitted("a", WORK), 0.0)
    assert core.handle(WorkFailed("a", first.ticket, "died", retry=True, actor_lost=True), 1.0) == [ReplaceActor(1, Role.FIELD)]
    assert core.videos["a"].phase is Phase.PENDING
    assert core.handle(ActorReady(1, Role.FIELD), 2.0) == [StartSlice("a", 1, 1)]


def test_a_failed_refresh_is_tried_as_a_refresh() -> None:
    core = scheduler()
    (first,) = core.handle(Submitted("a", WORK), 0.0)
    (refresh,) = core.handle(slice_done(first, 2, 0, wanted=True), 1.0)
    assert core.handle(WorkFailed("a", refresh.ticket, "disk full", retry=True, actor_lost=False), 2.0) == [StartRefresh("a", 0, 2)]


def test_a_video_is_given_up_after_its_failures() -> None:
    core = scheduler(max_failures=1)
    (start,) = core.handle(Submitted("a", WORK), 0.0)
    (start,) = core.handle(WorkFailed("a", start.ticket, "one", retry=True, actor_lost=False), 1.0)
    assert core.handle(WorkFailed("a", start.ticket, "two", retry=True, actor_lost=False), 2.0) == [Finish("a", "two")]
    assert core.videos["a"].phase is Phase.FAILED


def test_a_users_mistake_is_not_tried_again() -> None:
    core = scheduler(max_failures=9)
    (start,) = core.handle(Submitted("a", WORK), 0.0)
    assert core.handle(WorkFailed("a", start.ticket, "no such clip", retry=False, actor_lost=False), 1.0) == [Finish("a", "no such clip")]


def test_a_report_of_work_that_was_given_up_changes_nothing() -> None:
    core = scheduler()
    (start,) = core.handle(Submitted("a", WORK), 0.0)
    core.handle(WorkFailed("a", start.ticket, "lost", retry=True, actor_lost=False), 1.0)
    before = repr(core.videos)
    assert core.handle(slice_done(start, 9, 3, finished=True), 2.0) == []
    assert repr(core.videos) == before


def test_a_video_returns_to_the_worker_that_knows_it() -> None:
    core = scheduler()
    core.handle(ActorReady(2, Role.FIELD), 0.0)
    (a,) = core.handle(Submitted("a", WORK), 0.0)
    (b,) = core.handle(Submitted("b", WORK), 0.0)
    (refresh_b,) = core.handle(slice_done(b, 2, 0, wanted=True), 1.0)
    core.handle(slice_done(a, 2, 0, wanted=True), 1.0)
    commands = core.handle(RefreshDone("b", refresh_b.ticket, 1), 2.0)
    assert StartSlice("b", b.actor, 2) in commands


def test_a_name_is_submitted_once() -> None:
    core = scheduler()
    core.handle(Submitted("a", WORK), 0.0)
    with pytest.raises(ValueError, match="'a' was submitted twice"):
        core.handle(Submitted("a", WORK), 0.0)


def overlapping(start: StartSlice, steps: int, refreshes: int, blocked: bool = False) -> SliceDone:
    """A slice that ended while a refresh is asked for."""
    return SliceDone(start.video, start.ticket, steps, refreshes, 20, True, blocked, False)


def test_steps_go_on_beside_a_refresh() -> None:
    core = scheduler()
    (first,) = core.handle(Submitted("a", WORK), 0.0)
    second, refresh = core.handle(overlapping(first, 4, 1), 1.0)
    assert (second, refresh) == (StartSlice("a", 1, 1), StartRefresh("a", 0, 2))
    (third,) = core.handle(overlapping(second, 5, 1), 2.0)
    assert third == StartSlice("a", 1, 3), "the refresh is not begun twice"
    assert core.handle(overlapping(third, 6, 1, blocked=True), 3.0) == []
    assert core.videos["a"].phase is Phase.REFRESHING
    (fourth,) = core.handle(RefreshDone("a", refresh.ticket, 2), 4.0)
    assert fourth == StartSlice("a", 1, 4)


def test_a_refresh_made_while_its_slice_ran_is_not_asked_for_again() -> None:
    core = scheduler()
    (first,) = core.handle(Submitted("a", WORK), 0.0)
    second, refresh = core.handle(overlapping(first, 4, 1), 1.0)
    assert core.handle(RefreshDone("a", refresh.ticket, 2), 2.0) == []
    assert core.handle(overlapping(second, 6, 1, blocked=True), 3.0) == [StartSlice("a", 1, 3)]


def test_a_late_word_of_one_refresh_does_not_answer_the_next() -> None:
    """The field worker finds the answer on the disk, and asks for the next refresh, before the refresh worker's report arrives."""
    core = scheduler()
    (first,) = core.handle(Submitted("a", WORK), 0.0)
    second, refresh = core.handle(overlapping(first, 4, 1), 1.0)
    assert core.handle(overlapping(second, 8, 2, blocked=True), 2.0) == []
    assert core.handle(RefreshDone("a", refresh.ticket, 2), 3.0) == [StartRefresh("a", 0, 3)]


def test_work_beside_a_failed_video_frees_its_actor() -> None:
    core = scheduler(max_failures=0)
    (first,) = core.handle(Submitted("a", WORK), 0.0)
    second, refresh = core.handle(overlapping(first, 4, 1), 1.0)
    assert core.handle(WorkFailed("a", refresh.ticket, "no", retry=True, actor_lost=False), 2.0) == [Finish("a", "no")]
    assert core.handle(Submitted("b", WORK), 3.0) == []
    assert core.handle(overlapping(second, 5, 1), 4.0) == [StartSlice("b", 1, 0)]
    assert core.videos["a"].phase is Phase.FAILED


OVERLAP = 2
"""Steps that may follow a request before its answer is needed."""


@dataclass
class Truth:
    """What really is on a video's disk."""

    steps: int = 0
    asked: int = 0
    """Refreshes that were asked for."""
    made: int = 0
    refreshes: int = 0
    """Refreshes whose targets are in force."""

    def blocked(self, overlap: int) -> bool:
        if self.asked == self.refreshes:
            return False
        asked_at = WORK.warm_up_steps + (self.asked - 1) * WORK.refresh_interval
        return self.asked in (1, WORK.num_refreshes) or self.steps >= asked_at + overlap


class ManyVideos(RuleBasedStateMachine):
    """Videos come at any time; work ends well, badly, or with the death of its actor, in any order."""

    @initialize(
        kind=st.sampled_from(sorted(POLICIES)), num_field=st.integers(1, 3), num_refresh=st.integers(1, 2), overlap=st.sampled_from([0, OVERLAP])
    )
    def begin(self, kind: str, num_field: int, num_refresh: int, overlap: int) -> None:
        self.overlap = overlap
        self.core = Scheduler(make_policy(SchedulerConfig(kind=kind)), max_failures=2)
        self.now = 0.0
        self.truth: dict[str, Truth] = {}
        self.running: dict[tuple[str, Role], StartSlice | StartRefresh] = {}
        self.stale: list[Event] = []
        self.ended: dict[str, str | None] = {}
        self.num_actors = {Role.FIELD: num_field, Role.REFRESH: num_refresh}
        roles = [role for role, count in self.num_actors.items() for _ in range(count)]
        for number, role in enumerate(roles):
            self.send(ActorReady(number, role))

    def send(self, event: Event) -> None:
        self.now += 1.0
        for command in self.core.handle(event, self.now):
            self.obey(command)

    def obey(self, command: Command) -> None:
        if isinstance(command, Finish):
            assert command.video not in self.ended, "a video ends once"
            self.ended[command.video] = command.error
        elif isinstance(command, ReplaceActor):
            self.send(ActorReady(command.number, command.role))
        else:
            role = Role.FIELD if isinstance(command, StartSlice) else Role.REFRESH
            assert (command.video, role) not in self.running, "no video has two slices or two refreshes at once"
            assert (command.video, Role.REFRESH) not in self.running or self.overlap, "nothing goes on beside a refresh unless it may"
            assert command.actor not in {work.actor for work in self.running.values()}, "an actor does one thing at a time"
            assert command.video not in self.ended
            self.running[command.video, role] = command

    @rule()
    def submit(self) -> None:
        name = f"video-{len(self.truth)}"
        self.truth[name] = Truth()
        self.send(Submitted(name, WORK))

    @rule(data=st.data(), steps=st.integers(1, 5))
    def work_ends(self, data: st.DataObject, steps: int) -> None:
        if self.running:
            self.finish_work(data.draw(st.sampled_from(self.at_work())), steps)

    @rule(data=st.data(), retry=st.booleans(), actor_lost=st.booleans())
    def work_fails(self, data: st.DataObject, retry: bool, actor_lost: bool) -> None:
        if self.running:
            work = self.running.pop(data.draw(st.sampled_from(self.at_work())))
            self.stale.append(RefreshDone(work.video, work.ticket, 9))
            self.send(WorkFailed(work.video, work.ticket, "failed", retry, actor_lost))

    @rule(data=st.data())
    def a_late_report_arrives(self, data: st.DataObject) -> None:
        if self.stale:
            before = repr(self.core)
            self.send(data.draw(st.sampled_from(self.stale)))
            assert repr(self.core) == before

    def at_work(self) -> list[tuple[str, Role]]:
        return sorted(self.running, key=lambda key: (key[0], key[1].value))

    def finish_work(self, key: tuple[str, Role], steps: int) -> None:
        """As joint.loop: targets are taken in `overlap` steps after they were asked for, or before the next request; then steps go on."""
        work, truth = self.running.pop(key), self.truth[key[0]]
        if isinstance(work, StartRefresh):
            truth.made = truth.asked
            self.send(RefreshDone(work.video, work.ticket, truth.made))
            return
        total = WORK.warm_up_steps + WORK.steps
        for _ in range(steps):
            if truth.blocked(self.overlap) and truth.made == truth.asked:
                truth.refreshes = truth.made
            if truth.blocked(self.overlap) or truth.refreshes == WORK.num_refreshes:
                break
            truth.steps += 1
            if truth.steps == WORK.warm_up_steps + truth.asked * WORK.refresh_interval or truth.steps == total:
                truth.asked += 1
        wanted, finished = truth.asked > truth.refreshes, truth.refreshes == WORK.num_refreshes
        blocked = truth.blocked(self.overlap)
        self.send(SliceDone(work.video, work.ticket, truth.steps, truth.refreshes, 20, wanted, blocked, finished))

    @invariant()
    def every_video_is_somewhere(self) -> None:
        if not hasattr(self, "core"):
            return
        assert set(self.core.videos) == set(self.truth), "no video is lost"
        for name, video in self.core.videos.items():
            assert set(video.under_way) == {role for other, role in self.running if other == name}
            assert (name in self.ended) == video.phase.is_final

    @invariant()
    def nothing_idles_while_work_waits(self) -> None:
        if not hasattr(self, "core"):
            return
        for role, count in self.num_actors.items():
            busy = sum(role in video.under_way for video in self.core.videos.values())
            waiting = sum(video.waits_for(role) for video in self.core.videos.values())
            assert busy <= count
            assert waiting == 0 or busy == count

    def teardown(self) -> None:
        """Whatever happened before: when nothing fails any more, every video ends."""
        if not hasattr(self, "core"):
            return
        for _ in range(100 * (1 + len(self.truth))):
            if self.running:
                self.finish_work(self.at_work()[0], 3)
        assert self.core.is_finished
        assert set(self.ended) == set(self.truth)


TestManyVideos = ManyVideos.TestCase
TestManyVideos.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
