"""A batch in simulated time whose journal is kept as a driver keeps it."""

from __future__ import annotations

from pathlib import Path

from dpscale.config.schema import SchedulerConfig
from dpscale.scheduler.journal import Journal, Opening
from dpscale.scheduler.messages import VideoWork
from dpscale.scheduler.simulation import Cluster, Course, Job, ServiceTimes, Simulation
from dpscale.scheduler.state import Scheduler

SETTINGS = SchedulerConfig(kind="fair", max_failures=1, tenant_weights={"lab": 3.0}, slice_steps=100)
NAMES = [f"video-{number}" for number in range(8)]
OPENING = Opening(SETTINGS, {name: f"fingerprint of {name}" for name in NAMES}, rebalance_s=20.0)
TIMES = ServiceTimes(field_step_s=0.1, slice_s=0.5, load_s=1.0, refresh_frame_s=0.2, refresh_s=3.0)
CLUSTER = Cluster(num_field=3, num_refresh=2, gpus_per_node=2, failures_per_hour=40, preemptions_per_hour=3)


def simulated() -> tuple[Scheduler, Course]:
    """Rough enough that some videos are given up."""
    jobs = [Job(name, VideoWork(50, 1000, 400, 4), 30, tenant="lab" if number % 2 else "club") for number, name in enumerate(NAMES)]
    scheduler = OPENING.scheduler()
    return scheduler, Simulation(scheduler, jobs, TIMES, CLUSTER, SETTINGS.slice_steps, seed=3).run()


def write_journal(path: Path, course: Course, num_events: int | None = None, finished: bool = True) -> None:
    begun, *_ = course.events
    journal = Journal(path, OPENING, begun[0])
    for at, event in course.events[:num_events]:
        journal.append(event, at)
    journal.close(course.makespan_s, finished)
