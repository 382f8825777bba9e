from __future__ import annotations

import pytest
from hypothesis import settings

from dpscale.config.schema import SchedulerConfig
from dpscale.scheduler.messages import (
    ActorReady,
    Cancelled,
    Command,
    Finish,
    NodeDraining,
    Paused,
    Prefetch,
    RefreshDone,
    RefreshStopped,
    ReplaceActor,
    Reprioritized,
    Resumed,
    Role,
    SliceDone,
    StartRefresh,
    StartSlice,
    StopRefresh,
    Submitted,
    Tick,
    WorkFailed,
)  # fmt: skip
from dpscale.scheduler.policy import make_policy
from dpscale.scheduler.records import Phase
from dpscale.scheduler.state import Scheduler
from tests.unit.scheduler.many_videos import WORK, ManyVideos


def scheduler(max_failures: int = 1) -> Scheduler:
    """One refresh worker (0), one field worker (1)."""
    made = Scheduler(make_policy(SchedulerConfig(kind="fifo")), max_failures, stall_s=100.0)
    made.handle(ActorReady(0, Role.REFRESH), 0.0)
    made.handle(ActorReady(1, Role.FIELD), 0.0)
    return made


def started(max_failures: int = 1) -> tuple[Scheduler, StartSlice]:
    core = scheduler(max_failures)
    (first,) = core.handle(Submitted("a", WORK), 0.0)
    return core, first


def slice_done(start: StartSlice, steps: int, refreshes: int, wanted: bool = False, finished: bool = False) -> SliceDone:
    return SliceDone(start.video, start.ticket, steps, refreshes, 20, wanted, wanted, finished)


def test_a_video_alternates_slices_and_refreshes() -> None:
    core, first = started()
    assert first == StartSlice("a", 1, 0)
    (refresh,) = core.handle(slice_done(first, 2, 0, wanted=True), 1.0)
    assert refresh == StartRefresh("a", 0, 1)
    (second,) = core.handle(RefreshDone("a", refresh.ticket, 1), 2.0)
    assert second == StartSlice("a", 1, 2)
    assert core.handle(slice_done(second, 10, 3, finished=True), 3.0) == [Finish("a", None)]
    assert core.is_finished
    assert core.videos["a"].finished_s == 3.0


def test_the_field_worker_serves_another_video_during_a_refresh() -> None:
    core, first = started()
    assert core.handle(Submitted("b", WORK), 0.0) == []
    commands = core.handle(slice_done(first, 2, 0, wanted=True), 1.0)
    assert commands == [StartSlice("b", 1, 0), StartRefresh("a", 0, 1)]


def test_a_lost_worker_is_replaced_and_the_video_tried_again() -> None:
    core, first = started()
    assert core.handle(WorkFailed("a", first.ticket, "died", retry=True, actor_lost=True), 1.0) == [ReplaceActor(1, Role.FIELD)]
    assert core.videos["a"].phase is Phase.PENDING
    assert core.handle(ActorReady(1, Role.FIELD), 2.0) == [StartSlice("a", 1, 1)]


def test_a_failed_refresh_is_tried_as_a_refresh() -> None:
    core, first = started()
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


def beside() -> tuple[Scheduler, StartSlice, StartRefresh]:
    core, first = started()
    return core, *core.handle(overlapping(first, 4, 1), 1.0)


def test_steps_go_on_beside_a_refresh() -> None:
    core, second, refresh = beside()
    assert (second, refresh) == (StartSlice("a", 1, 1), StartRefresh("a", 0, 2))
    (third,) = core.handle(overlapping(second, 5, 1), 2.0)
    assert third == StartSlice("a", 1, 3), "the refresh is not begun twice"
    assert core.handle(overlapping(third, 6, 1, blocked=True), 3.0) == []
    assert core.videos["a"].phase is Phase.REFRESHING
    (fourth,) = core.handle(RefreshDone("a", refresh.ticket, 2), 4.0)
    assert fourth == StartSlice("a", 1, 4)


def test_a_refresh_made_while_its_slice_ran_is_not_asked_for_again() -> None:
    core, second, refresh = beside()
    assert core.handle(RefreshDone("a", refresh.ticket, 2), 2.0) == []
    assert core.handle(overlapping(second, 6, 1, blocked=True), 3.0) == [StartSlice("a", 1, 3)]


def test_a_late_word_of_one_refresh_does_not_answer_the_next() -> None:
    """The field worker finds the answer on the disk, and asks for the next refresh, before the refresh worker's report arrives."""
    core, second, refresh = beside()
    assert core.handle(overlapping(second, 8, 2, blocked=True), 2.0) == []
    assert core.handle(RefreshDone("a", refresh.ticket, 2), 3.0) == [StartRefresh("a", 0, 3)]


def test_work_beside_a_failed_video_frees_its_actor() -> None:
    core, first = started(max_failures=0)
    second, refresh = core.handle(overlapping(first, 4, 1), 1.0)
    assert core.handle(WorkFailed("a", refresh.ticket, "no", retry=True, actor_lost=False), 2.0) == [Finish("a", "no")]
    assert core.handle(Submitted("b", WORK), 3.0) == []
    assert core.handle(overlapping(second, 5, 1), 4.0) == [StartSlice("b", 1, 0)]
    assert core.videos["a"].phase is Phase.FAILED


def refreshing() -> tuple[Scheduler, StartRefresh]:
    core, first = started()
    (refresh,) = core.handle(slice_done(first, 2, 0, wanted=True), 1.0)
    return core, refresh


def test_a_paused_refresh_stops_and_goes_on_when_resumed() -> None:
    core, refresh = refreshing()
    assert core.handle(Paused("a"), 2.0) == [StopRefresh("a", 0, refresh.ticket)]
    assert core.videos["a"].phase is Phase.REFRESHING
    assert core.handle(RefreshStopped("a", refresh.ticket), 3.0) == []
    assert core.videos["a"].phase is Phase.PAUSED
    assert core.handle(Resumed("a"), 4.0) == [StartRefresh("a", 0, 2)]
    assert core.videos["a"].failures == 0


def test_a_cancelled_video_ends_at_once() -> None:
    core, refresh = refreshing()
    assert core.handle(Cancelled("a"), 2.0) == [StopRefresh("a", 0, refresh.ticket), Finish("a", "cancelled")]
    assert core.is_finished
    assert core.handle(RefreshDone("a", refresh.ticket, 1), 3.0) == []
    assert core.videos["a"].phase is Phase.CANCELLED
    assert core.handle(Resumed("a"), 4.0) == []


def test_a_wish_for_an_unknown_video_changes_nothing() -> None:
    core, _ = started()
    assert core.handle(Paused("z"), 1.0) == []


def test_a_video_in_a_hurry_overtakes() -> None:
    core, first = started()
    core.handle(Submitted("b", WORK), 0.0)
    core.handle(Submitted("c", WORK), 0.0)
    assert core.handle(Reprioritized("c", 1), 0.5) == []
    assert core.handle(slice_done(first, 1, 0), 1.0) == [StartSlice("c", 1, 0)]


def test_a_draining_node_is_left() -> None:
    core = Scheduler(make_policy(SchedulerConfig(kind="fifo")), max_failures=0)
    for number, role in enumerate([Role.REFRESH, Role.FIELD, Role.FIELD]):
        core.handle(ActorReady(number, role, "spot"), 0.0)
    (start,) = core.handle(Submitted("a", WORK), 0.0)
    assert core.handle(NodeDraining("spot"), 1.0) == [ReplaceActor(0, Role.REFRESH), ReplaceActor(1, Role.FIELD)], "the slice may end"
    assert core.handle(NodeDraining("spot"), 1.0) == []
    assert core.handle(slice_done(start, 2, 0, wanted=True), 2.0) == [ReplaceActor(2, Role.FIELD)]
    (refresh,) = core.handle(ActorReady(0, Role.REFRESH, "next"), 3.0)
    assert core.handle(NodeDraining("next"), 4.0) == [StopRefresh("a", 0, refresh.ticket)]
    lost = WorkFailed("a", refresh.ticket, "its node went", retry=True, actor_lost=True, blameless=True)
    assert core.handle(lost, 5.0) == [ReplaceActor(0, Role.REFRESH)]
    assert core.videos["a"].phase is Phase.REFRESH_WANTED


def test_hung_work_is_given_up() -> None:
    core, first = started()
    assert core.handle(Tick(), 100.0) == []
    assert core.handle(Tick(), 100.5) == [ReplaceActor(1, Role.FIELD)]
    assert core.videos["a"].failures == 1
    assert core.handle(slice_done(first, 2, 0, wanted=True), 101.0) == []


def rebalanced(num_field: int, waiting: int, until_s: int) -> tuple[Scheduler, list[Command]]:
    """One refresh actor (0) with `waiting` videos in its line, and field actors without work; a tick each second."""
    core = Scheduler(make_policy(SchedulerConfig(kind="fifo")), 0, rebalance_s=10.0)
    for number in range(num_field + 1):
        core.handle(ActorReady(number, Role.FIELD if number else Role.REFRESH), 0.0)
    starts = [core.handle(Submitted(f"video-{number}", WORK), 0.0) for number in range(waiting + 1)]
    for commands in starts:
        for command in commands:
            assert isinstance(command, StartSlice)
            starts.append(core.handle(slice_done(command, 2, 0, wanted=True), 0.0))
            starts[-1][:] = [one for one in starts[-1] if isinstance(one, StartSlice)]
    assert core.num_waiting(Role.REFRESH) == waiting
    return core, [command for second in range(1, until_s + 1) for command in core.handle(Tick(), float(second))]


def test_half_of_the_idle_field_actors_take_up_diffusion() -> None:
    core, commands = rebalanced(num_field=6, waiting=8, until_s=10)
    assert commands == [ReplaceActor(number, Role.REFRESH) for number in (command.number for command in commands)]
    assert len(commands) == 3
    begun = [core.handle(ActorReady(command.number, Role.REFRESH), 11.0) for command in commands]
    assert [sum(isinstance(each, StartRefresh) for each in after) for after in begun] == [1, 1, 1]
    assert core.num_waiting(Role.REFRESH) == 5


def test_nobody_changes_where_nothing_waits_or_one_is_left() -> None:
    assert rebalanced(num_field=6, waiting=0, until_s=40)[1] == []
    assert rebalanced(num_field=1, waiting=8, until_s=40)[1] == []


def test_actors_on_their_way_count() -> None:
    _, commands = rebalanced(num_field=6, waiting=2, until_s=60)
    assert len(commands) <= 3, "two videos wait and three were asked for: no more are"


TestManyVideos = ManyVideos.TestCase
TestManyVideos.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)


def test_the_next_performer_is_read_ahead_by_who_will_be_free_first() -> None:
    core = scheduler()
    core.handle(ActorReady(2, Role.REFRESH), 0.0)
    core.handle(ActorReady(3, Role.FIELD), 0.0)
    starts = [core.handle(Submitted(name, WORK), 0.0)[0] for name in "ab"]
    first, second = (core.handle(slice_done(start, 2, 0, wanted=True), 1.0)[0] for start in starts)
    assert {first.actor, second.actor} == {0, 2}
    (c,) = core.handle(Submitted("c", WORK), 1.0)
    assert core.handle(slice_done(c, 2, 0, wanted=True), 2.0) == [Prefetch("c", first.actor)]
    assert core.handle(Tick(), 3.0) == [], "told once"
    after = core.handle(RefreshDone("a", first.ticket, 1), 4.0)
    assert StartRefresh("c", first.actor, 1) in after
    assert not any(isinstance(command, Prefetch) for command in after), "nobody waits"


def test_mixed_actors_refresh_first_but_for_priority() -> None:
    core = Scheduler(make_policy(SchedulerConfig(kind="fifo")), 1, mixed=True)
    core.handle(ActorReady(0, Role.FIELD), 0.0)
    (first,) = core.handle(Submitted("a", WORK), 0.0)
    assert core.handle(Submitted("b", WORK), 0.0) == []
    assert core.handle(slice_done(first, 2, 0, wanted=True), 1.0) == [StartRefresh("a", 0, 1)]
    assert core.handle(Submitted("c", WORK, priority=1), 2.0) == []
    assert core.handle(RefreshStopped("a", 1), 3.0) == [StartSlice("c", 0, 0)]
    assert core.num_actors(Role.FIELD) == core.num_actors(Role.REFRESH) == 1
