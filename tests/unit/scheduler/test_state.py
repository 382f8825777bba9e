from __future__ import annotations

from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dpscale.config.schema import SchedulerConfig
from dpscale.scheduler.policy import POLICIES, Fifo, make_policy
from dpscale.scheduler.state import (
    TRANSITIONS,
    WAITS_FOR,
    WORKS_IN,
    ActorReady,
    Command,
    Event,
    Finish,
    Phase,
    RefreshDone,
    ReplaceActor,
    Role,
    Scheduler,
    SliceDone,
    StartRefresh,
    StartSlice,
    Submitted,
    VideoWork,
    WorkFailed,
)

WORK = VideoWork(warm_up_steps=2, steps=8, refresh_interval=4, num_refreshes=3)


def scheduler(max_failures: int = 1) -> Scheduler:
    """One refresh worker (0), one field worker (1)."""
    made = Scheduler(Fifo(), max_failures)
    made.handle(ActorReady(0, Role.REFRESH), 0.0)
    made.handle(ActorReady(1, Role.FIELD), 0.0)
    return made


def slice_done(start: StartSlice, steps: int, refreshes: int, wanted: bool = False, finished: bool = False) -> SliceDone:
    return SliceDone(start.video, start.ticket, steps, refreshes, 20, wanted, finished)


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


def test_every_working_phase_has_its_transitions() -> None:
    for role in Role:
        assert TRANSITIONS[WORKS_IN[role], WorkFailed] == {WAITS_FOR[role], Phase.FAILED}
    assert {phase for phase, _ in TRANSITIONS} == set(WORKS_IN.values())


@dataclass
class Truth:
    """What really is on a video's disk."""

    steps: int = 0
    refreshes: int = 0


class ManyVideos(RuleBasedStateMachine):
    """Videos come at any time; work ends well, badly, or with the death of its actor, in any order."""

    @initialize(kind=st.sampled_from(sorted(POLICIES)), num_field=st.integers(1, 3), num_refresh=st.integers(1, 2))
    def begin(self, kind: str, num_field: int, num_refresh: int) -> None:
        self.core = Scheduler(make_policy(SchedulerConfig(kind=kind)), max_failures=2)
        self.now = 0.0
        self.truth: dict[str, Truth] = {}
        self.running: dict[str, StartSlice | StartRefresh] = {}
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
            assert command.video not in self.running, "no video is worked on twice at once"
            assert command.actor not in {work.actor for work in self.running.values()}, "an actor does one thing at a time"
            assert command.video not in self.ended
            self.running[command.video] = command

    @rule()
    def submit(self) -> None:
        name = f"video-{len(self.truth)}"
        self.truth[name] = Truth()
        self.send(Submitted(name, WORK))

    @rule(data=st.data(), steps=st.integers(1, 5))
    def work_ends(self, data: st.DataObject, steps: int) -> None:
        if self.running:
            self.finish_work(data.draw(st.sampled_from(sorted(self.running))), steps)

    @rule(data=st.data(), retry=st.booleans(), actor_lost=st.booleans())
    def work_fails(self, data: st.DataObject, retry: bool, actor_lost: bool) -> None:
        if self.running:
            work = self.running.pop(data.draw(st.sampled_from(sorted(self.running))))
            self.stale.append(RefreshDone(work.video, work.ticket, 9))
            self.send(WorkFailed(work.video, work.ticket, "failed", retry, actor_lost))

    @rule(data=st.data())
    def a_late_report_arrives(self, data: st.DataObject) -> None:
        if self.stale:
            before = repr(self.core)
            self.send(data.draw(st.sampled_from(self.stale)))
            assert repr(self.core) == before

    def finish_work(self, name: str, steps: int) -> None:
        work, truth = self.running.pop(name), self.truth[name]
        if isinstance(work, StartRefresh):
            truth.refreshes += 1
            self.send(RefreshDone(name, work.ticket, truth.refreshes))
            return
        due = WORK.warm_up_steps + truth.refreshes * WORK.refresh_interval if truth.refreshes < WORK.num_refreshes else truth.steps
        truth.steps = min(truth.steps + steps, due)
        finished = truth.refreshes == WORK.num_refreshes
        self.send(SliceDone(name, work.ticket, truth.steps, truth.refreshes, 20, truth.steps == due and not finished, finished))

    @invariant()
    def every_video_is_somewhere(self) -> None:
        if not hasattr(self, "core"):
            return
        assert set(self.core.videos) == set(self.truth), "no video is lost"
        for name, video in self.core.videos.items():
            assert (name in self.running) == (video.phase in WORKS_IN.values())
            assert (name in self.ended) == video.phase.is_final

    @invariant()
    def nothing_idles_while_work_waits(self) -> None:
        if not hasattr(self, "core"):
            return
        for role, count in self.num_actors.items():
            busy = sum(video.phase is WORKS_IN[role] for video in self.core.videos.values())
            waiting = sum(video.phase is WAITS_FOR[role] for video in self.core.videos.values())
            assert busy <= count
            assert waiting == 0 or busy == count

    def teardown(self) -> None:
        """Whatever happened before: when nothing fails any more, every video ends."""
        if not hasattr(self, "core"):
            return
        for _ in range(100 * (1 + len(self.truth))):
            if self.running:
                self.finish_work(min(self.running), 3)
        assert self.core.is_finished
        assert set(self.ended) == set(self.truth)


TestManyVideos = ManyVideos.TestCase
TestManyVideos.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
