"""Preprocessing of many clips on Ray Data. Everything that needs Ray is here; a clip itself is prepared by `clips.py`.

    manifest of clips -> leave out the finished ones -> one block a clip -> prepare and write the shard -> receipts

A clip never leaves the actor that prepares it: frames would burst Ray Data's blocks, and shards are written where they are made.
What a clip becomes follows from its key alone, so order, restarts and the number of actors change nothing."""

from __future__ import annotations

import logging
import time
import traceback
from dataclasses import replace
from typing import Any

import ray
import ray.data
import torch

from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError, Outcome
from dpscale.preprocess.clips import Tools, write_driving, write_main, write_movement
from dpscale.preprocess.manifest import Job, driving_jobs, main_jobs, movement_path
from dpscale.preprocess.quarantine import Quarantined, read_quarantine, still_quarantined, update_quarantine

log = logging.getLogger(__name__)

_ACTOR_CPUS = 0.5
"""Logical CPUs of an actor: small enough for two beside Ray Data's own tasks on two CPUs."""


def preprocess(config: Config, layout: RunLayout) -> list[Outcome]:
    """Prepares every clip of the run that is not finished; one Outcome a clip, in the config's order.

    First the performers' own clips and the movement in driving videos, then the driving clips that need both. Ray must be
    initialised. Raises InputError only if the cluster is too small for `preprocess.num_actors`."""
    first = _prepare(config, layout, main_jobs(config, layout))
    second = _prepare(config, layout, driving_jobs(config, layout, {o.name: o.error for o in first if o.error}))
    return [outcome for outcome in first + second if outcome.name in _clip_names(config)]


def _clip_names(config: Config) -> set[str]:
    """A driving video's movement is no clip of its own: if it fails, its clips say so."""
    return {p.name for p in config.performers} | {f"{v.performer}/{v.drive}" for v in config.planned_videos()}


def _prepare(config: Config, layout: RunLayout, jobs: list[Job]) -> list[Outcome]:
    quarantine = read_quarantine(layout.quarantine)
    jobs = [_kept_out(job, quarantine.get(job.name)) for job in jobs]
    pending = [job for job in jobs if not job.finished and job.error is None]
    receipts = _run(config, layout, pending) if pending else {}
    _quarantine(layout, jobs, receipts)
    return [_outcome(job, receipts.get(job.name)) for job in jobs]


def _kept_out(job: Job, entry: Quarantined | None) -> Job:
    if job.finished or job.error is not None or entry is None or not still_quarantined(entry, job.key):
        return job
    return replace(job, error=f"{entry.reason} (in quarantine since {entry.time:%Y-%m-%d %H:%M} UTC; --retry-quarantined tries it again)")


def _quarantine(layout: RunLayout, jobs: list[Job], receipts: dict[str, dict[str, Any]]) -> None:
    """Writes down what failed in this call; what was kept out stays as it is."""
    untried = [Quarantined.now(job.name, job.key, job.error, "", input_at_fault=True) for job in jobs if job.error and not job.key]
    keys = {job.name: job.key for job in jobs}
    failed = [
        Quarantined.now(name, keys[name], receipt["error"], receipt["traceback"], receipt["input_at_fault"])
        for name, receipt in receipts.items()
        if receipt["error"]
    ]
    finished = {job.name for job in jobs if job.finished} | {name for name, receipt in receipts.items() if not receipt["error"]}
    update_quarantine(layout.quarantine, untried + failed, finished)


def _outcome(job: Job, receipt: dict[str, Any] | None) -> Outcome:
    if receipt is None:
        return Outcome("preprocess", job.name, 0.0, error=job.error, skipped=job.finished)
    return Outcome("preprocess", job.name, receipt["seconds"], error=receipt["error"] or None)


def _run(config: Config, layout: RunLayout, jobs: list[Job]) -> dict[str, dict[str, Any]]:
    """Receipts by name of the job."""
    num_actors = _num_actors(config, len(jobs))
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = -1  # a long clip is no hang
    with ray.data.DataContext.current(context):
        rows = [{"kind": job.kind, "name": job.name, "performer": job.performer, "drive": job.drive, "key": job.key} for job in jobs]
        manifest = ray.data.from_items(rows, override_num_blocks=len(rows))
        receipts = manifest.map(
            PrepareClip,
            fn_constructor_kwargs={"config": config, "layout": layout},
            compute=ray.data.ActorPoolStrategy(size=num_actors),
            num_cpus=_ACTOR_CPUS,
        )
        return {receipt["name"]: receipt for receipt in receipts.take_all()}


def _num_actors(config: Config, num_jobs: int) -> int:
    """Raises InputError if the cluster cannot hold the actors and one task of Ray Data beside them: it would wait for ever."""
    cpus = ray.cluster_resources().get("CPU", 0)
    wanted = config.preprocess.num_actors
    if wanted * _ACTOR_CPUS > cpus - 1:
        fits = max(0, int((cpus - 1) / _ACTOR_CPUS))
        raise InputError(
            f"preprocess.num_actors = {wanted} needs {wanted * _ACTOR_CPUS + 1:g} logical CPUs, Ray has {cpus:g}: "
            + (f"set it to at most {fits}, or raise ray.num_cpus" if fits else "raise ray.num_cpus to at least 2")
        )
    return min(wanted, num_jobs)


class PrepareClip:
    """One actor: prepares one clip at a time. An error becomes part of the receipt and stops no other clip."""

    def __init__(self, config: Config, layout: RunLayout) -> None:
        torch.set_num_threads(config.ray.torch_threads)
        self.tools = Tools(config, layout)
        self.performers = {p.name: p for p in config.performers}
        self.drives = {d.name: d for d in config.drives}

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        start, error, trace, input_at_fault = time.monotonic(), "", "", False
        try:
            self._write(row)
        except InputError as wrong:
            error, trace, input_at_fault = str(wrong), traceback.format_exc(), True
        except Exception as wrong:  # whatever one clip does must not stop the others
            log.exception("%s failed", row["name"])
            where = traceback.extract_tb(wrong.__traceback__)[-1]
            error, trace = f"{type(wrong).__name__}: {wrong} ({where.name}, {where.filename}:{where.lineno})", traceback.format_exc()
        return {"name": row["name"], "seconds": time.monotonic() - start, "error": error, "traceback": trace, "input_at_fault": input_at_fault}

    def _write(self, row: dict[str, Any]) -> None:
        movement, provenance = movement_path(self.tools.layout, row["drive"]), {"key": row["key"]}
        if row["kind"] == "main":
            write_main(self.tools, self.performers[row["performer"]], provenance)
        elif row["kind"] == "movement":
            write_movement(self.tools, self.drives[row["drive"]], movement, row["key"])
        else:
            write_driving(self.tools, self.performers[row["performer"]], self.drives[row["drive"]], movement, provenance)
