from __future__ import annotations

import pytest

from dpscale.config.schema import SchedulerConfig
from dpscale.scheduler.messages import VideoWork
from dpscale.scheduler.policy import CriticalPath, Fifo, diffusion_work_left, make_policy, steps_to_refresh
from dpscale.scheduler.state import VideoRecord

WORK = VideoWork(warm_up_steps=50, steps=1000, refresh_interval=400, num_refreshes=4)


def video(order: int, steps_done: int = 0, refreshes_done: int = 0, num_frames: int = 20) -> VideoRecord:
    return VideoRecord(f"video-{order}", order, WORK, num_frames, steps_done=steps_done, refreshes_done=refreshes_done)


def test_fifo_serves_in_order() -> None:
    videos = [video(2), video(0, refreshes_done=3), video(1)]
    assert [v.order for v in sorted(videos, key=Fifo().slice_key)] == [0, 1, 2]
    assert [v.order for v in sorted(videos, key=Fifo().refresh_key)] == [0, 1, 2]


def test_critical_path_refreshes_the_longest_remaining_work_first() -> None:
    videos = [video(0, 1050, 3), video(1, 50, 0), video(2, 450, 1, num_frames=100)]
    assert [v.order for v in sorted(videos, key=CriticalPath().refresh_key)] == [2, 1, 0]


def test_critical_path_takes_the_shortest_way_to_a_refresh_first() -> None:
    videos = [video(0, 100, 1), video(1, 0, 0), video(2, 1040, 3), video(3, 1050, 4)]
    assert [v.order for v in sorted(videos, key=CriticalPath().slice_key)] == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("steps_done", "refreshes_done", "left"), [(0, 0, 50), (50, 0, 0), (50, 1, 400), (449, 1, 1), (850, 3, 200), (1050, 3, 0), (1050, 4, 0)]
)
def test_steps_to_the_next_refresh(steps_done: int, refreshes_done: int, left: int) -> None:
    assert steps_to_refresh(video(0, steps_done, refreshes_done)) == left


def test_work_left_counts_frames_to_generate() -> None:
    assert diffusion_work_left(video(0, refreshes_done=1)) == 3 * 20


def test_the_kind_names_the_policy() -> None:
    assert isinstance(make_policy(SchedulerConfig(kind="fifo")), Fifo)
    assert isinstance(make_policy(SchedulerConfig()), CriticalPath)
