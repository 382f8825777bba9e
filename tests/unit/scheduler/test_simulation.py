from __future__ import annotations

import dataclasses

import pytest

from dpscale.config.schema import SchedulerConfig
from dpscale.scheduler.messages import Role, VideoWork, WorkFailed
from dpscale.scheduler.policy import POLICIES, make_policy
from dpscale.scheduler.simulation import Cluster, Course, Job, ServiceTimes, Simulation, chain_s, field_s, refresh_s
from dpscale.scheduler.state import Scheduler

TIMES = ServiceTimes(field_step_s=0.1, slice_s=0.5, load_s=1.0, refresh_frame_s=0.2, refresh_s=3.0, result_s=2.0)
WORK = VideoWork(warm_up_steps=50, steps=1000, refresh_interval=400, num_refreshes=4)
SLICE = 100
ROUGH = {"failures_per_hour": 30.0, "preemptions_per_hour": 3.0}


def job(number: int, num_frames: int = 20, tenant: str = "default") -> Job:
    return Job(f"video-{number}", WORK, num_frames, (1.0, 0.7, 0.5, 0.3), tenant)


def course(jobs: list[Job], cluster: Cluster, kind: str = "critical_path", max_failures: int = 100, rebalance_s: float | None = None) -> Course:
    scheduler = Scheduler(make_policy(SchedulerConfig.model_validate({"kind": kind})), max_failures, rebalance_s=rebalance_s)
    made = Simulation(scheduler, jobs, TIMES, cluster, SLICE, seed=5).run()
    assert {name for name, video in scheduler.videos.items() if video.error is None} == {one.name for one in jobs}
    return made


def test_a_video_alone_takes_its_chain() -> None:
    """50 + 1000 steps in 1 + 4 + 4 + 2 slices; four passes."""
    alone = job(0)
    assert field_s(alone, TIMES, SLICE) == pytest.approx(1050 * 0.1 + 11 * 0.5 + 1.0 + 2.0)
    assert refresh_s(alone, TIMES) == pytest.approx(2.5 * 20 * 0.2 + 4 * 3.0)
    made = course([alone], Cluster(num_field=1, num_refresh=1))
    assert made.makespan_s == pytest.approx(chain_s(alone, TIMES, SLICE))
    assert made.busy_s == pytest.approx({Role.FIELD: field_s(alone, TIMES, SLICE), Role.REFRESH: refresh_s(alone, TIMES)})


def test_no_course_is_shorter_than_its_bounds() -> None:
    jobs = [job(number, 10 + 7 * number) for number in range(12)]
    for kind in POLICIES:
        made = course(jobs, Cluster(num_field=3, num_refresh=2), kind)
        assert made.makespan_s >= max(chain_s(one, TIMES, SLICE) for one in jobs) - 1e-6
        assert made.makespan_s >= sum(field_s(one, TIMES, SLICE) for one in jobs) / 3 - 1e-6
        assert made.busy_s[Role.REFRESH] == pytest.approx(sum(refresh_s(one, TIMES) for one in jobs))


def test_a_worker_loads_what_it_does_not_hold() -> None:
    jobs = [job(number) for number in range(4)]
    holding = course(jobs, Cluster(num_field=1, num_refresh=1, warm_videos=4))
    forgetting = course(jobs, Cluster(num_field=1, num_refresh=1, warm_videos=1))
    assert holding.busy_s[Role.FIELD] == pytest.approx(sum(field_s(one, TIMES, SLICE) for one in jobs))
    assert forgetting.busy_s[Role.FIELD] > holding.busy_s[Role.FIELD] + 4


@pytest.mark.parametrize("kind", sorted(POLICIES))
def test_failures_cost_time_and_no_video(kind: str) -> None:
    jobs = [job(number, 30) for number in range(10)]
    calm, rough = Cluster(4, 2, gpus_per_node=2), Cluster(4, 2, gpus_per_node=2, **ROUGH)
    made = course(jobs, rough, kind, rebalance_s=20.0)
    assert made.num_failures > 0
    assert made.num_preemptions > 0
    assert made.lost_s > 0
    assert made.makespan_s > course(jobs, calm, kind).makespan_s


def test_a_preempted_refresh_keeps_what_it_did() -> None:
    """One long pass on a node that goes again and again: it could never be done in one piece."""
    long = Job("long", VideoWork(0, 100, 100, 2), 20_000)
    fleeting = Cluster(num_field=1, num_refresh=1, gpus_per_node=1, preemptions_per_hour=3.0)
    made = course([long], fleeting)
    assert made.num_preemptions > 2
    assert made.busy_s[Role.REFRESH] < refresh_s(long, TIMES) + 10 * made.num_preemptions
    failed = [event for _, event in made.events if isinstance(event, WorkFailed)]
    assert all(event.blameless for event in failed)


def test_a_seed_gives_one_course() -> None:
    jobs = [job(number, 30) for number in range(6)]
    one, two = (course(jobs, Cluster(4, 2, gpus_per_node=2, **ROUGH)) for _ in range(2))
    assert dataclasses.asdict(one) == dataclasses.asdict(two)


def test_changing_roles_saves_time() -> None:
    """Diffusion is most of the work of these, and nearly all actors begin as field workers."""
    jobs = [job(number, 400) for number in range(20)]
    fixed, changing = (course(jobs, Cluster(num_field=9, num_refresh=1), rebalance_s=each).makespan_s for each in (None, 30.0))
    assert changing < 0.5 * fixed
