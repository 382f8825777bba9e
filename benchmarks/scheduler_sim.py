"""What would 10,000 videos take on 1,000 GPUs? The scheduler's own code in simulated time (dpscale/scheduler/simulation.py), with service
times of a run: `--times RUN`, a run folder, whose journal is measured; or a JSON file with the key `service_times`, by default those of the last
kept result.

Videos have log-normal lengths (median 150 frames); 1 % of the work under way an hour fails, and a node of 8 GPUs is taken away every 10 hours
on average, with 120 s notice. GPUs are split between field and refresh in proportion to their work. `makespan_over_bound`: critical_path
against the larger of all work divided by all GPUs and the longest video alone, in which nothing fails; `_without_failures`: the same course
on a cluster where nothing fails; `_mixed`: on workers that do both (scheduler.mixed). `critical_path_vs_fifo`: the ratio of their makespans.
`jain_index`: of GPU seconds divided by weight, for three tenants of weights 1, 2 and 4 under `fair`, while all three have videos that wait;
`jain_index_fifo`: the same under fifo. `decisions_per_s`: a course's events given to a fresh scheduler again, nothing simulated, CPU time of
one core. `bytes_per_video`: of the scheduler, for more and more videos."""

from __future__ import annotations

import json
import random
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import arguments, finish
from dpscale.config.schema import JointConfig, SchedulerConfig
from dpscale.data.layout import RunLayout
from dpscale.joint.plan import num_refreshes, strength
from dpscale.scheduler.journal import segments
from dpscale.scheduler.logbook import journal_path
from dpscale.scheduler.measured_times import measured_times
from dpscale.scheduler.messages import Role, Submitted, VideoWork
from dpscale.scheduler.policy import make_policy
from dpscale.scheduler.simulation import Cluster, Course, Job, ServiceTimes, Simulation, chain_s, field_s, refresh_s
from dpscale.scheduler.state import Scheduler

SEED = 20261127
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 4.0}
FAILING = {"failures_per_hour": 0.01, "preemptions_per_hour": 0.1}
KEPT = Path("benchmarks/results/scheduler_sim.json")


def main() -> None:
    options = {
        "videos": {"type": int, "default": 10_000},
        "gpus": {"type": int, "default": 1000},
        "times": {"type": Path, "default": KEPT, "help": "run folder, or JSON with the key service_times"},
        "steps": {"type": int, "default": 10_000, "help": "field steps of a video (paper: 10,000)"},
    }
    args = arguments(__doc__, **options)
    question = Question(service_times(args.times), args.videos, args.gpus, args.steps)
    courses = {kind: question.course(kind) for kind in ("fifo", "critical_path", "fair")}
    calm, mixed = question.course("critical_path", failing=False), question.course("critical_path", mixed=True)
    bound = question.bound_s()
    others = {"critical_path, nothing fails": calm, "critical_path, mixed workers": mixed}
    rows = [row(kind, course, bound, args.gpus) for kind, course in (courses | others).items()]
    result = {
        "videos": args.videos, "gpus": args.gpus, "service_times": vars(question.times), "bound_s": bound,
        "longest_chain_s": question.longest_s(), "field_gpus": question.cluster.num_field, "refresh_gpus": question.cluster.num_refresh,
        "makespan_over_bound": courses["critical_path"].makespan_s / bound,
        "makespan_over_bound_without_failures": calm.makespan_s / bound,
        "makespan_over_bound_mixed": mixed.makespan_s / bound,
        "critical_path_vs_fifo": courses["fifo"].makespan_s / courses["critical_path"].makespan_s,
        "jain_index": jain_index(courses["fair"], question.jobs), "jain_index_fifo": jain_index(courses["fifo"], question.jobs),
        "decisions_per_s": decisions_per_s(question, courses["critical_path"]),
        "bytes_per_video": {num: bytes_per_video(num) for num in (1000, 4000, 16_000, 64_000)},
    }  # fmt: skip
    finish("scheduler_sim", args.json, result, rows)


def service_times(path: Path) -> ServiceTimes:
    if path.is_dir():
        return measured_times(segments(journal_path(RunLayout(path).scheduling)))
    return ServiceTimes(**json.loads(path.read_text())["service_times"])


class Question:
    """The videos, and the cluster that fits their work."""

    def __init__(self, times: ServiceTimes, num_videos: int, num_gpus: int, steps: int) -> None:
        self.times, self.num_gpus = times, num_gpus
        self._joint = JointConfig(steps=steps)
        self._settings = SchedulerConfig(slice_steps=500, tenant_weights=WEIGHTS)
        draw = random.Random(SEED)
        self.jobs = [self._job(number, draw) for number in range(num_videos)]
        of_field, of_refresh = self.work_s()
        num_refresh = min(num_gpus - 1, max(1, round(num_gpus * of_refresh / (of_field + of_refresh))))
        self.cluster = Cluster(num_gpus - num_refresh, num_refresh, warm_videos=self._settings.warm_videos)

    def _job(self, number: int, draw: random.Random) -> Job:
        joint = self._joint
        passes = num_refreshes(joint) + 1
        work = VideoWork(joint.warm_up_steps, joint.steps, joint.refresh_interval, passes)
        num_frames = min(3000, max(16, round(draw.lognormvariate(5.0, 0.7))))
        strengths = tuple(strength(joint, refresh) for refresh in range(passes))
        return Job(f"video-{number:05d}", work, num_frames, strengths, tenant=draw.choice(sorted(WEIGHTS)))

    def work_s(self) -> tuple[float, float]:
        """Of all field workers, of the diffusion model."""
        slice_steps = self._settings.slice_steps
        return sum(field_s(job, self.times, slice_steps) for job in self.jobs), sum(refresh_s(job, self.times) for job in self.jobs)

    def longest_s(self) -> float:
        return max(chain_s(job, self.times, self._settings.slice_steps) for job in self.jobs)

    def bound_s(self) -> float:
        return max(sum(self.work_s()) / self.num_gpus, self.longest_s())

    def scheduler(self, kind: str, mixed: bool = False) -> Scheduler:
        settings = self._settings.model_copy(update={"kind": kind})
        return Scheduler(make_policy(settings), settings.max_failures, rebalance_s=settings.rebalance_s, mixed=mixed)

    def course(self, kind: str, failing: bool = True, mixed: bool = False) -> Course:
        cluster = replace(self.cluster, **FAILING) if failing else self.cluster
        return Simulation(self.scheduler(kind, mixed), self.jobs, self.times, cluster, self._settings.slice_steps, SEED).run()


def row(kind: str, course: Course, bound_s: float, num_gpus: int) -> dict[str, Any]:
    return {
        "policy": kind, "makespan_h": course.makespan_s / 3600, "over_bound": course.makespan_s / bound_s,
        "busy": sum(course.busy_s.values()) / (course.makespan_s * num_gpus), "failures": course.num_failures,
        "preemptions": course.num_preemptions, "lost_gpu_h": course.lost_s / 3600,
    }  # fmt: skip


def jain_index(course: Course, jobs: list[Job]) -> float:
    """(sum x)^2 / (n sum x^2) of x = seconds received / weight (Jain, Chiu and Hawe 1984), until the first tenant's last video begins."""
    tenants = {job.name: job.tenant for job in jobs}
    begun: dict[str, float] = {}
    for at, event in course.events:
        if hasattr(event, "video") and not isinstance(event, Submitted):
            begun.setdefault(event.video, at)
    until = min(max(at for name, at in begun.items() if tenants[name] == tenant) for tenant in WEIGHTS)
    received = dict.fromkeys(WEIGHTS, 0.0)
    for ended, tenant, seconds in course.served:
        if ended <= until:
            received[tenant] += seconds / WEIGHTS[tenant]
    shares = list(received.values())
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def decisions_per_s(question: Question, course: Course) -> float:
    """Commands of the scheduler, a second of CPU time."""
    scheduler = question.scheduler("critical_path")
    before, num_commands = time.process_time(), 0
    for at, event in course.events:
        num_commands += len(scheduler.handle(event, at))
    return num_commands / (time.process_time() - before)


def bytes_per_video(num_videos: int) -> float:
    joint = JointConfig()
    work = VideoWork(joint.warm_up_steps, joint.steps, joint.refresh_interval, num_refreshes(joint) + 1)
    tracemalloc.start()
    scheduler = Scheduler(make_policy(SchedulerConfig()), 3)
    for number in range(num_videos):
        scheduler.handle(Submitted(f"video-{number:06d}", work, 150), 0.0)
    assert scheduler.num_waiting(Role.FIELD) == num_videos
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return used / num_videos


if __name__ == "__main__":
    main()
