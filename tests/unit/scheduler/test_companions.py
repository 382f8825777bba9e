"""Videos of one performer at one refresh worker; many_videos.py has them in any order that hypothesis can think of."""

from __future__ import annotations

from dpscale.config.schema import SchedulerConfig
from dpscale.scheduler.messages import (
    ActorReady,
    Command,
    Event,
    NodeDraining,
    RefreshDone,
    RefreshStopped,
    ReplaceActor,
    Role,
    SliceDone,
    StartRefresh,
    StartSlice,
    StopRefresh,
    Submitted,
    WorkFailed,
)
from dpscale.scheduler.policy import make_policy
from dpscale.scheduler.state import Scheduler
from dpscale.scheduler.status import figures
from tests.unit.scheduler.many_videos import WORK

REFRESH_ACTOR = 0


class Run:
    """One refresh worker (0) and enough field workers; every slice ends at once and wants a refresh."""

    def __init__(self, together: int, **performers: str) -> None:
        self.core = Scheduler(make_policy(SchedulerConfig(kind="fifo")), 3, together=together)
        self.refreshing: list[StartRefresh] = []
        self.commands: list[Command] = []
        self.now = 0.0
        self.tell(ActorReady(REFRESH_ACTOR, Role.REFRESH, "node"))
        for number, name in enumerate(performers):
            self.tell(ActorReady(1 + number, Role.FIELD, "elsewhere"))
            self.tell(Submitted(name, WORK, performer=performers[name]))

    def tell(self, event: Event) -> None:
        self.now += 1.0
        for command in self.core.handle(event, self.now):
            self.commands.append(command)
            if isinstance(command, StartSlice):
                made = self.core.videos[command.video].refreshes_done
                self.tell(SliceDone(command.video, command.ticket, 2, made, 20, True, True, False))
            elif isinstance(command, StartRefresh):
                self.refreshing.append(command)

    def at_refresh(self) -> list[str]:
        return list(self.core.actors[REFRESH_ACTOR].videos)

    def begun(self, video: str) -> StartRefresh:
        return next(start for start in reversed(self.refreshing) if start.video == video)


def test_videos_of_one_performer_are_refreshed_together_up_to_the_limit() -> None:
    run = Run(2, b1="ben", a1="ada", a2="ada", a3="ada")
    assert run.at_refresh() == ["b1"]
    run.tell(RefreshDone("b1", run.begun("b1").ticket, 1))
    assert run.at_refresh() == ["a1", "a2"]


def test_the_first_in_line_joins_in() -> None:
    run = Run(3, a1="ada", a2="ada", b1="ben")
    assert run.at_refresh() == ["a1", "a2"]


def test_nobody_joins_before_the_first_in_line() -> None:
    run = Run(3, b1="ben", a1="ada", a2="ada")
    run.tell(RefreshDone("b1", run.begun("b1").ticket, 1))
    run.tell(RefreshDone("a1", run.begun("a1").ticket, 1))
    assert run.at_refresh() == ["a2"], "b1 waits for longer than a1"
    run.tell(RefreshDone("a2", run.begun("a2").ticket, 1))
    assert run.at_refresh() == ["b1"]


def test_the_figures_tell_how_many_share_calls() -> None:
    found = figures(Run(3, a1="ada", a2="ada", b1="ben").core)
    assert (found["together/refresh"], found["busy/refresh"], found["waiting/refresh"]) == (2, 1, 1)
    assert found["together/field"] == 0


def test_by_default_each_goes_alone() -> None:
    run = Run(1, a1="ada", a2="ada")
    assert run.at_refresh() == ["a1"]
    run.tell(RefreshDone("a1", run.begun("a1").ticket, 1))
    assert run.at_refresh() == ["a2"]


def test_a_dead_worker_is_replaced_once_and_who_failed_goes_alone() -> None:
    run = Run(2, a1="ada", a2="ada")
    for video in ("a1", "a2"):
        run.tell(WorkFailed(video, run.begun(video).ticket, "its worker died", retry=True, actor_lost=True))
    assert run.commands.count(ReplaceActor(REFRESH_ACTOR, Role.REFRESH)) == 1
    run.tell(ActorReady(REFRESH_ACTOR, Role.REFRESH))
    assert run.at_refresh() == ["a1"]


def test_the_late_failure_of_a_companion_costs_the_new_worker_nothing() -> None:
    run = Run(2, a1="ada", a2="ada")
    run.tell(WorkFailed("a1", run.begun("a1").ticket, "its worker died", retry=True, actor_lost=True))
    run.tell(ActorReady(REFRESH_ACTOR, Role.REFRESH))
    assert run.at_refresh() == ["a1"]
    run.tell(WorkFailed("a2", run.begun("a2").ticket, "its worker died", retry=True, actor_lost=True))
    assert run.at_refresh() == ["a1"]
    assert run.commands.count(ReplaceActor(REFRESH_ACTOR, Role.REFRESH)) == 1


def test_a_node_that_goes_takes_nobody_in_and_stops_all() -> None:
    run = Run(3, a1="ada", a2="ada")
    run.tell(NodeDraining("node"))
    assert [command.video for command in run.commands if isinstance(command, StopRefresh)] == ["a1", "a2"]
    run.tell(ActorReady(9, Role.FIELD))
    run.tell(Submitted("a3", WORK, performer="ada"))
    assert run.at_refresh() == ["a1", "a2"]
    for video in ("a1", "a2"):
        run.tell(RefreshStopped(video, run.begun(video).ticket))
    assert run.commands.count(ReplaceActor(REFRESH_ACTOR, Role.REFRESH)) == 1
    run.tell(ActorReady(REFRESH_ACTOR, Role.REFRESH))
    assert sorted(run.at_refresh()) == ["a1", "a2", "a3"]
