"""Many videos, workers that fail and messages that come late, in any order that hypothesis can think of."""

from __future__ import annotations

from dataclasses import dataclass

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dpscale.config.schema import SchedulerConfig
from dpscale.scheduler.messages import (
    ActorReady,
    Cancelled,
    Command,
    Event,
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
    VideoWork,
    WorkFailed,
)  # fmt: skip
from dpscale.scheduler.policy import POLICIES, make_policy
from dpscale.scheduler.state import Scheduler

WORK = VideoWork(warm_up_steps=2, steps=8, refresh_interval=4, num_refreshes=3)

OVERLAP = 2
"""Steps that may follow a request before its answer is needed."""

STALL_S = 1000.0
TENANTS = ["alpha", "beta"]
PERFORMERS = ["ada", "ben"]


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
        kind=st.sampled_from(sorted(POLICIES)),
        num_field=st.integers(1, 3),
        num_refresh=st.integers(1, 2),
        overlap=st.sampled_from([0, OVERLAP]),
        together=st.integers(1, 3),
        mixed=st.booleans(),
    )
    def begin(self, kind: str, num_field: int, num_refresh: int, overlap: int, together: int, mixed: bool) -> None:
        self.overlap, self.together, self.mixed = overlap, together, mixed
        self.core = Scheduler(make_policy(SchedulerConfig(kind=kind, tenant_weights={"alpha": 2.0})), 2, STALL_S, together=together, mixed=mixed)
        self.now = 0.0
        self.truth: dict[str, Truth] = {}
        self.running: dict[tuple[str, Role], StartSlice | StartRefresh] = {}
        self.starting: list[ReplaceActor] = []
        """Actors that are ready when all that followed from an event is done."""
        self.stale: list[Event] = []
        self.orphans: dict[tuple[str, Role], WorkFailed] = {}
        """What ran beside work for which its actor was replaced; its failure has not been told yet."""
        self.told_to_stop: set[str] = set()
        """Videos."""
        self.ended: dict[str, str | None] = {}
        self.num_actors = {Role.FIELD: num_field, Role.REFRESH: num_refresh}
        roles = [role for role, count in self.num_actors.items() for _ in range(count)]
        for number, role in enumerate(roles):
            self.send(ActorReady(number, role, f"node-{number % 2}"))

    def send(self, event: Event) -> None:
        self.now += 1.0
        for command in self.core.handle(event, self.now):
            self.obey(command)
        while self.starting:
            replaced = self.starting.pop(0)
            self.send(ActorReady(replaced.number, replaced.role, "a new node"))

    def obey(self, command: Command) -> None:
        if isinstance(command, Finish):
            assert command.video not in self.ended, "a video ends once"
            self.ended[command.video] = command.error
        elif isinstance(command, ReplaceActor):
            for key in [key for key, work in self.running.items() if work.actor == command.number]:
                work = self.running[key]
                late = WorkFailed(work.video, work.ticket, "late", True, True)
                if self.is_under_way(work):
                    self.orphans[key] = late
                else:
                    del self.running[key]
                    self.stale.append(late)
            self.starting.append(command)
        elif isinstance(command, StopRefresh):
            assert self.running[command.video, Role.REFRESH] == StartRefresh(command.video, command.actor, command.ticket)
            self.told_to_stop.add(command.video)
        elif isinstance(command, Prefetch):
            assert command.video in self.truth
            assert command.actor < sum(self.num_actors.values())
        else:
            role = Role.FIELD if isinstance(command, StartSlice) else Role.REFRESH
            assert (command.video, role) not in self.running, "no video has two slices or two refreshes at once"
            assert (command.video, Role.REFRESH) not in self.running or self.overlap, "nothing goes on beside a refresh unless it may"
            there = {key: work for key, work in self.running.items() if work.actor == command.actor and key not in self.orphans}
            assert all(other is role for _, other in there), "an actor does the work of one role at a time"
            others = [work.video for work in there.values()]
            assert len(others) < (self.together if role is Role.REFRESH else 1), "an actor does one thing at a time, or refreshes some together"
            assert {self.core.videos[name].performer for name in others} <= {self.core.videos[command.video].performer}
            assert not others or all(self.core.videos[name].failures == 0 for name in [command.video]), "who has failed goes alone"
            assert command.video not in self.ended
            assert not self.core.videos[command.video].paused
            self.running[command.video, role] = command

    def is_under_way(self, work: StartSlice | StartRefresh) -> bool:
        return any(piece.ticket == work.ticket for piece in self.core.videos[work.video].under_way.values())

    @rule(
        tenant=st.sampled_from(TENANTS),
        performer=st.sampled_from(PERFORMERS),
        priority=st.integers(-1, 1),
        deadline_s=st.none() | st.floats(0, 100),
    )
    def submit(self, tenant: str, performer: str, priority: int, deadline_s: float | None) -> None:
        name = f"video-{len(self.truth)}"
        self.truth[name] = Truth()
        self.send(Submitted(name, WORK, 20, tenant, priority, deadline_s, performer=performer))

    @rule(data=st.data(), wish=st.sampled_from([Paused, Resumed, Cancelled]))
    def somebody_wishes(self, data: st.DataObject, wish: type[Paused | Resumed | Cancelled]) -> None:
        if self.truth:
            self.send(wish(data.draw(st.sampled_from(sorted(self.truth)))))

    @rule(data=st.data(), priority=st.integers(-3, 3))
    def somebody_is_in_a_hurry(self, data: st.DataObject, priority: int) -> None:
        if self.truth:
            self.send(Reprioritized(data.draw(st.sampled_from(sorted(self.truth))), priority))

    @rule(node=st.sampled_from(["node-0", "node-1", "a new node"]))
    def a_node_goes(self, node: str) -> None:
        """Actors that work may end what they do; the others are replaced at once."""
        self.send(NodeDraining(node))
        for actor in self.core.actors.values():
            assert actor.node != node or node == "a new node" or actor.leaving
            if actor.leaving:
                at_refresh = {name for name, video in actor.videos.items() if video.piece_at(actor.number).role is Role.REFRESH}
                assert at_refresh <= self.told_to_stop

    @rule(seconds=st.sampled_from([1.0, STALL_S + 1]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.send(Tick())

    @rule(data=st.data())
    def a_refresh_stops(self, data: st.DataObject) -> None:
        stopping = [key for key in self.at_work() if key[1] is Role.REFRESH and key[0] in self.told_to_stop]
        if stopping:
            work = self.running.pop(data.draw(st.sampled_from(stopping)))
            self.told_to_stop.discard(work.video)
            self.send(RefreshStopped(work.video, work.ticket))

    @rule(data=st.data(), steps=st.integers(1, 5))
    def work_ends(self, data: st.DataObject, steps: int) -> None:
        if self.at_work():
            self.finish_work(data.draw(st.sampled_from(self.at_work())), steps)

    @rule(data=st.data(), retry=st.booleans(), actor_lost=st.booleans())
    def work_fails(self, data: st.DataObject, retry: bool, actor_lost: bool) -> None:
        if self.at_work():
            work = self.running.pop(data.draw(st.sampled_from(self.at_work())))
            self.told_to_stop.discard(work.video)
            self.stale.append(RefreshDone(work.video, work.ticket, 9))
            self.send(WorkFailed(work.video, work.ticket, "failed", retry, actor_lost))

    @rule()
    def a_companion_is_found_dead(self) -> None:
        if self.orphans:
            key, failure = next(iter(self.orphans.items()))
            del self.orphans[key], self.running[key]
            self.told_to_stop.discard(key[0])
            self.send(failure)

    @rule(data=st.data())
    def a_late_report_arrives(self, data: st.DataObject) -> None:
        if self.stale:
            before = repr(self.core.videos), repr(self.core.actors)
            self.send(data.draw(st.sampled_from(self.stale)))
            assert (repr(self.core.videos), repr(self.core.actors)) == before

    def at_work(self) -> list[tuple[str, Role]]:
        return sorted(self.running.keys() - self.orphans.keys(), key=lambda key: (key[0], key[1].value))

    def finish_work(self, key: tuple[str, Role], steps: int) -> None:
        """As joint.loop: targets are taken in `overlap` steps after they were asked for, or before the next request; then steps go on."""
        work, truth = self.running.pop(key), self.truth[key[0]]
        if isinstance(work, StartRefresh):
            self.told_to_stop.discard(work.video)
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
            those = [actor for actor in self.core.actors.values() if self.mixed or actor.role is role]
            busy = sum(len(actor.videos) > 0 for actor in those)
            waiting = sum(video.waits_for(role) for video in self.core.videos.values())
            assert len(those) == self.core.num_actors(role) == (sum(self.num_actors.values()) if self.mixed else count)
            assert waiting == 0 or busy == len(those)
            assert waiting == self.core.num_waiting(role)

    def teardown(self) -> None:
        """Whatever happened before: when nothing fails any more, every video ends."""
        if not hasattr(self, "core"):
            return
        for name in self.truth:
            self.send(Resumed(name))
        while self.orphans:
            self.a_companion_is_found_dead()
        for _ in range(100 * (1 + len(self.truth))):
            if self.at_work():
                self.finish_work(self.at_work()[0], 3)
        assert self.core.is_finished
        assert set(self.ended) == set(self.truth)
        assert not self.running, "and every actor rests"
