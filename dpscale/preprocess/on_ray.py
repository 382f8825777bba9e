"""Preprocessing of many clips as one streaming Ray Data graph. Everything that needs Ray is here; what a step does is in `clips.py`.

    manifest of clips -> leave out the finished ones -> find the person, fit the body -> cut frames, draw the pose -> encode -> parts -> shard

Between steps travel a clip's name or some of its frames, never a whole video. Every step leaves its result in the run folder under a
hash of what it follows from, so order, restarts and the number of actors change no bit, and nothing is computed twice."""

from __future__ import annotations

import pickle  # between our own actors only
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Literal

import ray
import ray.data

from dpscale.config.schema import Config
from dpscale.data.heap import keep_heap_small
from dpscale.data.layout import RunLayout
from dpscale.data.on_ray import room_for
from dpscale.data.remote import ShardStore
from dpscale.data.types import InputError, Outcome
from dpscale.preprocess.manifest import Job, driving_jobs, main_jobs
from dpscale.preprocess.quarantine import Quarantined, read_quarantine, still_quarantined, update_quarantine
from dpscale.preprocess.receipts import Row, receipt, row_of
from dpscale.preprocess.sharing import fetched

StepName = Literal["find the person, fit the body", "cut frames, draw the pose", "encode, write parts, join them"]

_BLOCK_BYTES = 2**20
"""Ray Data hands a block on when it is this large: every chunk of frames at once."""


def preprocess(config: Config, layout: RunLayout) -> list[Outcome]:
    """Prepares every clip of the run that is not finished; one Outcome a clip, in the config's order.

    First the performers' own clips and the bodies in driving videos, then the driving clips that need both. Ray must be
    initialised. Raises InputError only if the cluster is too small for the actors of the settings, or the store cannot be used."""
    if config.preprocess.store:
        ShardStore(config.preprocess.store).check()
    first = _prepare(config, layout, main_jobs(config, layout))
    second = _prepare(config, layout, driving_jobs(config, layout, {o.name: o.error for o in first if o.error}))
    return [outcome for outcome in first + second if outcome.name in _clip_names(config)]


def _clip_names(config: Config) -> set[str]:
    """A driving video's movement is no clip of its own: if it fails, its clips say so."""
    return {p.name for p in config.performers} | {f"{v.performer}/{v.drive}" for v in config.planned_videos()}


# ------------------------------------------------------------------------------------------ the graph


@dataclass(frozen=True)
class Pool:
    """Actors of one kind, and which steps each of them does one after the other."""

    steps: tuple[StepName, ...]
    gpus: float
    most: int
    """Actors at once; Ray Data lets them go as the work runs out."""


def pools(config: Config) -> tuple[Pool, ...]:
    """The graph, from the manifest of clips to receipts for parts of shards.

    Steps that need the same resources share actors: a process more would cost its start and the memory of torch, for nothing."""
    settings = config.preprocess
    person, cut, encode = "find the person, fit the body", "cut frames, draw the pose", "encode, write parts, join them"
    if settings.encode_gpus == 0:
        return (Pool((person, cut, encode), 0, settings.num_actors),)
    return Pool((person, cut), 0, settings.num_actors), Pool((encode,), settings.encode_gpus, settings.encode_actors)


_ACTOR_CPUS = 0.5
"""Logical CPUs of an actor: small enough for two of them beside Ray Data's own tasks on two CPUs."""


def _run(config: Config, layout: RunLayout, jobs: list[Job]) -> dict[str, Row]:
    """Receipts by name of the job."""
    graph = pools(config)
    actors = [{"CPU": _ACTOR_CPUS, "GPU": pool.gpus} for pool in graph for _ in range(pool.most)]
    _check_resources(graph, room_for([{"CPU": 1.0}, *actors], config.ray.grow_wait_s))  # 1: Ray Data's own task
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = -1  # a long clip is no hang
    context.target_max_block_size = _BLOCK_BYTES
    with ray.data.DataContext.current(context):
        data = ray.data.from_items([row_of(job) for job in jobs], override_num_blocks=len(jobs))
        for pool in graph:
            most = min(pool.most, len(jobs))
            data = data.flat_map(
                _Actor,
                fn_constructor_kwargs={"config": config, "layout": layout, "steps": pool.steps},
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=most, max_tasks_in_flight_per_actor=1),
                num_cpus=_ACTOR_CPUS,
                num_gpus=pool.gpus or None,
            )
        rows: dict[str, list[Row]] = defaultdict(list)
        for row in data.iter_rows():
            rows[row["name"]].append(row)
    return {name: receipt(own) for name, own in rows.items()}


def _check_resources(graph: tuple[Pool, ...], resources: dict[str, float]) -> None:
    """Raises InputError if the cluster cannot hold the actors and one task of Ray Data beside them: it would wait for ever."""
    cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    wanted = sum(_ACTOR_CPUS * pool.most for pool in graph)
    settings = "preprocess.num_actors" if len(graph) == 1 else "preprocess.num_actors and preprocess.encode_actors"
    if wanted > cpus - 1:
        raise InputError(
            f"{settings} = {' and '.join(str(pool.most) for pool in graph)} need {wanted + 1:g} logical CPUs, Ray has {cpus:g}: "
            "start fewer, or raise ray.num_cpus"
        )
    encoder = graph[-1]
    if encoder.gpus * encoder.most > gpus:
        raise InputError(
            f"preprocess.encode_gpus = {encoder.gpus:g} for {encoder.most} actors needs {encoder.gpus * encoder.most:g} GPUs, Ray has {gpus:g}: "
            "lower preprocess.encode_actors, or set preprocess.encode_gpus = 0"
        )


class _Actor:
    """Does some of the steps. Rows leave it as soon as they are there."""

    def __init__(self, config: Config, layout: RunLayout, steps: tuple[StepName, ...]) -> None:
        import torch  # here and no earlier: the driver and Ray Data's small tasks need neither it nor the networks

        from dpscale.preprocess import clips, rows

        torch.set_num_threads(config.ray.torch_threads)
        keep_heap_small()
        self.tools, self.steps = clips.Tools(config, layout), [rows.STEPS[name] for name in steps]

    def __call__(self, row: Row) -> Iterator[Row]:
        passing: Iterator[Row] = iter([{**row, "chunk": row["chunk"] and pickle.loads(row["chunk"])}])
        for step in self.steps:
            passing = chain.from_iterable(map(partial(step, self.tools), passing))
        for left in passing:
            yield {**left, "chunk": left["chunk"] and pickle.dumps(left["chunk"])}


# ---------------------------------------------------------------------------------------- quarantine


def _prepare(config: Config, layout: RunLayout, jobs: list[Job]) -> list[Outcome]:
    quarantine = read_quarantine(layout.quarantine)
    jobs = [_kept_out(job, quarantine.get(job.name)) for job in jobs]
    if config.preprocess.store:
        jobs = fetched(config.preprocess.store, layout, jobs)
    pending = [job for job in jobs if not job.finished and job.error is None]
    receipts = _run(config, layout, pending) if pending else {}
    _quarantine(layout, jobs, receipts)
    return [_outcome(job, receipts.get(job.name)) for job in jobs]


def _kept_out(job: Job, entry: Quarantined | None) -> Job:
    if job.finished or job.error is not None or entry is None or not still_quarantined(entry, job.key):
        return job
    return replace(job, error=f"{entry.reason} (in quarantine since {entry.time:%Y-%m-%d %H:%M} UTC; --retry-quarantined tries it again)")


def _quarantine(layout: RunLayout, jobs: list[Job], receipts: dict[str, Row]) -> None:
    """Writes down what failed in this call; what was kept out stays as it is."""
    untried = [Quarantined.now(job.name, job.key, job.error, "", input_at_fault=True) for job in jobs if job.error and not job.key]
    failed = [
        Quarantined.now(name, row["key"], row["error"], row["traceback"], row["input_at_fault"]) for name, row in receipts.items() if row["error"]
    ]
    finished = {job.name for job in jobs if job.finished} | {name for name, row in receipts.items() if not row["error"]}
    update_quarantine(layout.quarantine, untried + failed, finished)


def _outcome(job: Job, receipt: Row | None) -> Outcome:
    if receipt is None:
        return Outcome("preprocess", job.name, 0.0, error=job.error, skipped=job.finished)
    return Outcome("preprocess", job.name, receipt["seconds"], error=receipt["error"] or None, note=receipt["note"])
