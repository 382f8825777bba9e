from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpscale.scheduler.lines import FairShares, IdleActors, Line, Ordered
from dpscale.scheduler.messages import Role, VideoWork
from dpscale.scheduler.records import ActorRecord, VideoRecord

WORK = VideoWork(0, 100, 10, 11)


def by_priority(video: VideoRecord) -> tuple[float, ...]:
    return (-video.priority,)


def video(order: int, tenant: str = "default", priority: int = 0, num_frames: int = 1) -> VideoRecord:
    return VideoRecord(f"video-{order}", order, WORK, num_frames, tenant, priority)


def fair(**weights: float) -> FairShares:
    return FairShares(by_priority, lambda waiting: waiting.num_frames, weights)


LINES = [lambda: Ordered(by_priority), fair]


@pytest.mark.parametrize("make", LINES)
@given(data=st.data())
def test_a_line_equals_a_sorted_list(make, data: st.DataObject) -> None:
    line: Line = make()
    inside: dict[int, VideoRecord] = {}
    for order in range(data.draw(st.integers(0, 30))):
        action = data.draw(st.sampled_from(["add", "add", "take", "discard", "change"]))
        if action == "add":
            inside[order] = video(order, priority=data.draw(st.integers(0, 3)))
            line.add(inside[order])
        elif inside and action == "take":
            first = min(inside.values(), key=lambda waiting: (by_priority(waiting), waiting.order))
            assert line.take() is inside.pop(first.order)
        elif inside:
            chosen = inside.pop(data.draw(st.sampled_from(sorted(inside))))
            line.discard(chosen)
            if action == "change":
                chosen.priority += 1
                inside[chosen.order] = chosen
                line.add(chosen)
        assert len(line) == len(inside)


@pytest.mark.parametrize("make", LINES)
def test_an_empty_line_serves_nobody(make) -> None:
    line: Line = make()
    line.discard(video(0))
    assert len(line) == 0
    with pytest.raises(IndexError):
        line.take()


def test_a_tenant_that_comes_back_gets_no_arrears() -> None:
    line = fair()
    for order in range(20):
        line.add(video(order, "busy"))
    for _ in range(10):
        line.take()
    for order in range(20, 30):
        line.add(video(order, "late"))
    served = [line.take().tenant for _ in range(10)]
    assert served.count("late") in (5, 6), "half from now on, not everything until it has caught up"


@given(weights=st.lists(st.floats(0.2, 5), min_size=2, max_size=4), lengths=st.lists(st.integers(1, 40), min_size=400, max_size=400))
def test_shares_follow_weights(weights: list[float], lengths: list[int]) -> None:
    """While all wait, what two tenants received for their weight differs by at most one piece of each (Goyal, Vin and Cheng 1996, theorem 1)."""
    tenants = {f"tenant-{number}": weight for number, weight in enumerate(weights)}
    line = FairShares(by_priority, lambda waiting: waiting.num_frames, tenants)
    for order, length in enumerate(lengths):
        line.add(video(order, f"tenant-{order % len(weights)}", num_frames=length))
    left = {tenant: len(range(number, len(lengths), len(weights))) for number, tenant in enumerate(tenants)}
    received = dict.fromkeys(tenants, 0.0)
    while min(left.values()) > 0:
        one = line.take()
        received[one.tenant] += one.num_frames / tenants[one.tenant]
        left[one.tenant] -= 1
        slack = 2 * max(lengths) / min(weights)
        assert max(received.values()) - min(received.values()) <= slack + 1e-9


def test_an_idle_actor_may_be_wished_for() -> None:
    idle = IdleActors()
    for number in range(4):
        idle.add(ActorRecord(number, Role.FIELD))
    idle.discard(0)
    assert [idle.take(2).number, idle.take(2).number, idle.take(None).number] == [2, 3, 1]
    assert len(idle) == 0
    with pytest.raises(KeyError):
        idle.take(None)
