from __future__ import annotations

import pytest

from dpscale.config.schema import SchedulerConfig
from dpscale.scheduler.messages import Role, VideoWork
from dpscale.scheduler.policy import POLICIES, make_policy
from dpscale.scheduler.records import VideoRecord

WORK = VideoWork(warm_up_steps=50, steps=1000, refresh_interval=400, num_refreshes=4)


def video(order: int, steps_done: int = 0, refreshes_done: int = 0, num_frames: int = 20, **fields) -> VideoRecord:
    return VideoRecord(f"video-{order}", order, WORK, num_frames, steps_done=steps_done, refreshes_done=refreshes_done, **fields)


def served(kind: str, role: Role, videos: list[VideoRecord], **settings) -> list[int]:
    """Orders of submission, in the order of service."""
    line = make_policy(SchedulerConfig.model_validate({"kind": kind, **settings}))[role]
    for waiting in videos:
        line.add(waiting)
    return [line.take().order for _ in videos]


@pytest.mark.parametrize("role", list(Role))
def test_fifo_serves_in_order(role: Role) -> None:
    assert served("fifo", role, [video(2), video(0, refreshes_done=3), video(1)]) == [0, 1, 2]


def test_critical_path_refreshes_the_longest_remaining_work_first() -> None:
    assert served("critical_path", Role.REFRESH, [video(0, 1050, 3), video(1, 50, 0), video(2, 450, 1, num_frames=100)]) == [2, 1, 0]


def test_critical_path_takes_the_shortest_way_to_a_refresh_first() -> None:
    videos = [video(0, 100, 1), video(1, 0, 0), video(2, 1040, 3), video(3, 1050, 4)]
    assert served("critical_path", Role.FIELD, videos) == [3, 2, 1, 0]


def test_fair_serves_tenants_by_weight() -> None:
    videos = [video(order, tenant="small" if order < 6 else "large") for order in range(12)]
    order = served("fair", Role.REFRESH, videos, tenant_weights={"large": 2.0})
    assert [sum(one >= 6 for one in order[:end]) for end in (3, 6, 9)] == [2, 4, 6]


def test_fair_counts_frames_not_videos() -> None:
    videos = [video(order, num_frames=20, tenant="short") for order in range(8)] + [video(order, num_frames=80, tenant="long") for order in (8, 9)]
    order = served("fair", Role.REFRESH, videos)
    assert sorted(order[:5]) == [0, 1, 2, 3, 8], "four videos of 20 frames weigh as much as one of 80"


def test_fair_serves_the_nearest_deadline_of_a_tenant_first() -> None:
    videos = [video(0), video(1, deadline_s=50.0), video(2, deadline_s=40.0), video(3, priority=1)]
    for role in Role:
        assert served("fair", role, videos) == [3, 2, 1, 0]


@pytest.mark.parametrize("kind", sorted(POLICIES))
@pytest.mark.parametrize("role", list(Role))
def test_a_higher_priority_comes_first(kind: str, role: Role) -> None:
    assert served(kind, role, [video(0, priority=-1), video(1), video(2, priority=2)]) == [2, 1, 0]


@pytest.mark.parametrize(
    ("steps_done", "refreshes_done", "left"), [(0, 0, 50), (50, 0, 0), (50, 1, 400), (449, 1, 1), (850, 3, 200), (1050, 3, 0), (1050, 4, 0)]
)
def test_steps_to_the_next_refresh(steps_done: int, refreshes_done: int, left: int) -> None:
    assert video(0, steps_done, refreshes_done).steps_to_refresh == left


def test_work_left_counts_frames_to_generate() -> None:
    assert video(0, refreshes_done=1).diffusion_work_left == 3 * 20


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_a_weight_is_positive(weight: float) -> None:
    with pytest.raises(ValueError, match="tenant 'lab'"):
        SchedulerConfig(tenant_weights={"lab": weight})
