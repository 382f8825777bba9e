"""Preprocessing of many clips as one streaming Ray Data graph. Everything that needs Ray is here; what a step does is in `clips.py`.

    manifest of clips -> leave out the finished ones -> find the person, fit the body -> cut frames, draw the pose -> encode -> parts -> shard

Between steps travel a clip's name or some of its frames, never a whole video. Every step leaves its result in the run folder under a
hash of what it follows from, so order, restarts and the number of actors change no bit, and nothing is computed twice."""

from __future__ import annotations

import logging
import pickle  # between our own actors only
import shutil
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
import ray.data
import torch

from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from dpscale.data.remote import ShardStore
from dpscale.data.shards import join_parts, write_part
from dpscale.data.types import InputError, Outcome
from dpscale.preprocess.clips import Chunk, Tools, driving_chunks, encoded, main_chunks, prepare_person
from dpscale.preprocess.keys import settings_text
from dpscale.preprocess.manifest import MAIN, Job, driving_jobs, main_jobs
from dpscale.preprocess.quarantine import Quarantined, read_quarantine, still_quarantined, update_quarantine
from dpscale.preprocess.sharing import fetched, shared

log = logging.getLogger(__name__)

Row = dict[str, Any]
"""Which clip (the fields of Job), and what is known of it so far; `error` is empty as long as all went well."""

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
class Step:
    """One operator of the graph: actors of one kind."""

    name: str
    actor: type
    one_to_many: bool
    cpus: float
    gpus: float
    most: int
    """Actors at once; Ray Data starts with one and adds more while they are all busy."""


def steps(config: Config) -> tuple[Step, ...]:
    """The graph, from the manifest of clips to receipts for parts of shards."""
    settings = config.preprocess
    return (
        Step("find the person, fit the body", _FindPerson, False, _ACTOR_CPUS, 0, settings.num_actors),
        Step("cut frames, draw the pose", _CutFrames, True, _ACTOR_CPUS, 0, settings.num_actors),
        Step("encode, write a part of the shard", _EncodeFrames, False, _ACTOR_CPUS, settings.encode_gpus, settings.encode_actors),
    )


_ACTOR_CPUS = 0.5
"""Logical CPUs of an actor: small enough for all three kinds beside Ray Data's own tasks on two CPUs."""


def _run(config: Config, layout: RunLayout, jobs: list[Job]) -> dict[str, Row]:
    """Receipts by name of the job. A shard is joined as soon as its last part is there."""
    graph = steps(config)
    _check_resources(graph, ray.cluster_resources())
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = -1  # a long clip is no hang
    context.target_max_block_size = _BLOCK_BYTES
    rows = [{**{name: getattr(job, name) for name in ("kind", "name", "performer", "drive", "source", "key")}, **_NOTHING_YET} for job in jobs]
    with ray.data.DataContext.current(context):
        data = ray.data.from_items(rows, override_num_blocks=len(rows))
        for step in graph:
            apply = data.flat_map if step.one_to_many else data.map
            data = apply(
                step.actor,
                fn_constructor_kwargs={"config": config, "layout": layout},
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(step.most, len(jobs))),
                num_cpus=step.cpus,
                num_gpus=step.gpus or None,
            )
        return _collected(config.preprocess.store, layout, data.iter_rows())


_NOTHING_YET: Row = {"note": "", "start": 0, "num_frames": 0, "rows": 0, "seconds": 0.0, "error": "", "traceback": "", "input_at_fault": False}


def _check_resources(graph: tuple[Step, ...], resources: dict[str, float]) -> None:
    """Raises InputError if the cluster cannot hold the actors and one task of Ray Data beside them: it would wait for ever."""
    cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    wanted = sum(step.cpus * step.most for step in graph)
    if wanted > cpus - 1:
        raise InputError(
            f"preprocess.num_actors = {graph[0].most} and preprocess.encode_actors = {graph[-1].most} need {wanted + 1:g} logical CPUs, "
            f"Ray has {cpus:g}: lower them, or raise ray.num_cpus"
        )
    encoder = graph[-1]
    if encoder.gpus * encoder.most > gpus:
        raise InputError(
            f"preprocess.encode_gpus = {encoder.gpus:g} for {encoder.most} actors needs {encoder.gpus * encoder.most:g} GPUs, Ray has {gpus:g}: "
            "lower preprocess.encode_actors, or set preprocess.encode_gpus = 0"
        )


class _Actor:
    """What the actors of all steps have. An error becomes part of the row, which passes all later steps and stops no other clip."""

    def __init__(self, config: Config, layout: RunLayout) -> None:
        torch.set_num_threads(config.ray.torch_threads)
        self.tools = Tools(config, layout)
        self.performers = {p.name: p for p in config.performers}
        self.drives = {d.name: d for d in config.drives}


class _FindPerson(_Actor):
    def __call__(self, row: Row) -> Row:
        return _timed(row, lambda: self._prepare(row))

    def _prepare(self, row: Row) -> Row:
        if row["kind"] == "driving":
            return row
        source = self.drives[row["drive"]] if row["kind"] == "movement" else self.performers[row["performer"]]
        return {**row, "note": prepare_person(self.tools, source, row["source"])}


class _CutFrames(_Actor):
    def __call__(self, row: Row) -> Iterator[Row]:
        """Rows with a chunk each; the row itself where there are none to be made, or none can be."""
        if row["error"] or row["kind"] == "movement":
            yield {**row, "chunk": b""}
            return
        chunks = iter(self._chunks(row))
        parts = self.tools.layout.parts(row["performer"], row["drive"] or MAIN, row["key"])
        while True:
            cut = _timed(row, lambda: {"chunk": next(chunks, None)})
            if cut["error"]:
                yield {**cut, "chunk": b""}
            chunk: Chunk | None = cut.get("chunk")
            if cut["error"] or chunk is None:
                return
            size = {"start": chunk.start, "num_frames": chunk.num_frames, "rows": len(chunk.clip)}
            there = _part(parts, size).exists()
            yield {**cut, **size, "chunk": b"" if there else pickle.dumps(chunk)}
            row = {**row, "seconds": 0.0}  # receipts are added up

    def _chunks(self, row: Row) -> Iterator[Chunk]:
        performer = self.performers[row["performer"]]
        provenance = {"key": row["key"], "source": row["source"], "settings": settings_text(self.tools.config)}
        if row["kind"] == "main":
            return main_chunks(self.tools, performer, row["source"], provenance)
        return driving_chunks(self.tools, performer, self.drives[row["drive"]], row["source"], provenance)


class _EncodeFrames(_Actor):
    def __call__(self, row: Row) -> Row:
        receipt = {name: value for name, value in row.items() if name != "chunk"}
        return _timed(receipt, lambda: self._write(row, receipt)) if row["chunk"] else receipt

    def _write(self, row: Row, receipt: Row) -> Row:
        chunk: Chunk = pickle.loads(row["chunk"])
        parts = self.tools.layout.parts(row["performer"], row["drive"] or MAIN, row["key"])
        write_part(_part(parts, row), encoded(self.tools, chunk), chunk.start)
        return receipt


def _part(folder: Path, row: Row) -> Path:
    return folder / f"{row['start']:08d}-{row['rows']:04d}.parquet"


def _timed(row: Row, work) -> Row:
    """The row that `work` returns, with the time that it took; or the row with the error that it raised."""
    if row["error"]:
        return row
    start = time.monotonic()
    try:
        made, problem = work(), {}
    except InputError as wrong:
        made, problem = {}, {"error": str(wrong), "traceback": traceback.format_exc(), "input_at_fault": True}
    except Exception as wrong:  # whatever one clip does must not stop the others
        log.exception("%s failed", row["name"])
        where = traceback.extract_tb(wrong.__traceback__)[-1]
        error = f"{type(wrong).__name__}: {wrong} ({where.name}, {where.filename}:{where.lineno})"
        made, problem = {}, {"error": error, "traceback": traceback.format_exc()}
    return {**row, **made, **problem, "seconds": row["seconds"] + time.monotonic() - start}


# ----------------------------------------------------------------------------------------- receipts


@dataclass
class _Arrived:
    """What has come of one clip."""

    rows: list[Row] = field(default_factory=list)

    @property
    def failed(self) -> Row | None:
        return next((row for row in self.rows if row["error"]), None)

    @property
    def whole(self) -> bool:
        return bool(self.rows) and sum(row["rows"] for row in self.rows) == self.rows[0]["num_frames"]


def _collected(store: str | None, layout: RunLayout, receipts: Iterable[Row]) -> dict[str, Row]:
    arrived: dict[str, _Arrived] = {}
    joins: dict[str, ray.ObjectRef] = {}
    for row in receipts:
        clip = arrived.setdefault(row["name"], _Arrived())
        clip.rows.append(row)
        if row["kind"] != "movement" and clip.failed is None and clip.whole:
            joins[row["name"]] = _join.remote(store, layout, row, sorted(clip.rows, key=lambda r: r["start"]))
    finished = {}
    for name, clip in arrived.items():
        last = clip.failed or clip.rows[-1]
        joined = ray.get(joins[name]) if name in joins and clip.failed is None else last
        finished[name] = {**joined, "seconds": sum(row["seconds"] for row in clip.rows)}
    return finished


def _join_parts(store: str | None, layout: RunLayout, row: Row, receipts: list[Row]) -> Row:
    """The parts of a clip as its shard."""
    clip = row["drive"] or MAIN
    parts = layout.parts(row["performer"], clip, row["key"])
    joined = _timed(row, lambda: join_parts(layout.shard(row["performer"], clip), [_part(parts, receipt) for receipt in receipts]) or row)
    if joined["error"]:
        return joined
    shutil.rmtree(parts)
    problem = shared(store, layout, row["performer"], clip) if store else ""
    return {**joined, "note": "; ".join(note for note in (joined["note"], problem) if note)}


_join = ray.remote(num_cpus=0.1, max_retries=2)(_join_parts)


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
