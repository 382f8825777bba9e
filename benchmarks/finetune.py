"""Does finetuning gain from what is kept? Steps with cached latents and conditions against encoding inside the step; many performers in one
Ray session against a fresh process each. Rendered performers of 76 frames, `tiny`, 128 px, settings of jobs/configs/tiny.toml.

Steps: one finetuning, 80 denoiser steps on one thread, both ways taking each step in turn on a copy of the model each: cached latents and
embedding, pose maps and warped references kept once made (it starts with nothing kept); uncached: the drawn frames encoded by the
autoencoder, I_ref by CLIP, pose maps drawn, references warped and encoded in each step. Both have the clip in memory and must give equal losses.

Performers: short finetunings (20 denoiser steps, 5 decoder steps), settings but max_concurrent equal. Counted is a whole command `dpscale
finetune`, from its start to its end: imports, Ray, training, report. `sequential`: a command for each performer, one after the other;
`plain`: the same without Ray, tracker and report, a new Python for each that calls finetune_performer on all cores. A sample is one denoiser
clip of 8 frames; the decoder's steps take time and are not counted. `next_performer_start_s`: from the end of a performer to the first
step of the next in the same actor. `--full`: 80 and 50 steps, as in tiny.toml."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import arguments, finish
from dpscale.body.rendered import HELD_OUT_SEED
from dpscale.config.load import load
from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from dpscale.data.shards import read_clip
from dpscale.data.types import Clip
from dpscale.diffusion.weights import PoseVideoModel, load_model
from dpscale.finetune.loop import TorchEngine
from dpscale.finetune.step import DenoiserStep
from dpscale.finetune.trainable import trainable_denoiser, unfrozen

_PERFORMERS = {name: {"seed": HELD_OUT_SEED + 50 + n, "motion": motion} for n, (name, motion) in enumerate(
    {"anna": "dance_a", "ben": "dance_b", "cleo": "walk", "dan": "run"}.items())}  # fmt: skip
_NAMES = tuple(_PERFORMERS)
_PERFORMER = """
[[performers]]
kind = "rendered"
name = "{name}"
performer_seed = {seed}
motion = "{motion}"
num_frames = 76
fps = 15.0
"""
_STEPS, _CONCURRENT = 80, 2


def main() -> None:
    """Steps first, then 4, 2 and 1 performers."""
    given = arguments(__doc__ or "")
    folder = Path(tempfile.mkdtemp(prefix="dpscale-bench-"))
    try:
        _measure(folder, given.full, given.json)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(folder: Path, full: bool, path: Path | None) -> None:
    _command("preprocess", _job(folder, "shards", _NAMES, full))
    steps = _alone(_step_times, folder)
    runs = _many(folder, full)
    rows = [_row(way, some) for way, some in runs.items()]
    clips_per_s = {row["way"]: row["samples_per_s"] for row in rows}
    four = clips_per_s[f"{len(_NAMES)} in one session"]
    starts = runs[f"{len(_NAMES)} in one session"][0].next_starts_s
    finish("finetune", path, {
        "speedup_vs_uncached": steps["uncached"]["step_s"] / steps["cached"]["step_s"],
        "speedup_vs_sequential": four / clips_per_s["sequential"],
        "speedup_vs_plain_process": four / clips_per_s["plain"],
        "samples_per_s": {1: clips_per_s["sequential"], 2: clips_per_s["2 in one session"], 4: four},
        "step_s": {way: steps[way]["step_s"] for way in ("cached", "uncached")},
        "next_performer_start_s": max(starts),
        "next_performer_starts_s": starts,
        "steps": steps,
    }, rows)  # fmt: skip


# ------------------------------------------------------------------------------------------- steps


@dataclass(frozen=True)
class _Encoded:
    """Stands for Clip.latents: frames are encoded when they are asked for, and rounded as a shard rounds them."""

    model: PoseVideoModel
    frames: np.ndarray

    def __getitem__(self, frames: np.ndarray) -> np.ndarray:
        return self.model.encode(self.frames[frames]).numpy().astype(np.float16)


@dataclass(frozen=True)
class _Embedded:
    """Stands for Clip.image_embedding: made when it is asked for."""

    model: PoseVideoModel
    frame: np.ndarray

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.model.embed_image(self.frame)


def _step_times(folder: Path) -> dict[str, Any]:
    """Seconds of a step, median over all steps: to the loss (conditions and forward), backward, update, in all."""
    torch.set_num_threads(1)
    config = _job(folder, "shards", _NAMES, full=False).config()
    clip = read_clip(RunLayout.of(config).shard(_NAMES[0], "main"))
    with _Way(config, clip, cached=True) as cached, _Way(config, clip, cached=False) as uncached:
        for number in range(_STEPS):
            for way in (cached, uncached) if number % 2 else (uncached, cached):
                way.step(number)
    worst = float(np.max(np.abs(np.subtract(cached.losses, uncached.losses)) / np.abs(uncached.losses)))
    if worst > 1e-3:
        raise RuntimeError(f"the two ways do not do the same: losses differ by {worst:.2g} of their value")
    return {"cached": cached.medians(), "uncached": uncached.medians(), "largest_difference_of_losses": worst, "steps": _STEPS}


class _Way:
    """One finetuning of its own copy of the model; inside `with` its part trains."""

    def __init__(self, config: Config, clip: Clip, cached: bool) -> None:
        model, settings = load_model(config.diffusion), config.finetune
        if not cached:
            clip = replace(clip, latents=_Encoded(model, clip.frames), image_embedding=_Embedded(model, clip.frames[0]))
        self._part, self._lr = trainable_denoiser(model.denoiser, settings.trainable), settings.lr
        self._loss = DenoiserStep(
            model, clip, config.diffusion.pose_kinds, settings.clip_frames, settings.condition_dropout, settings.body_weight, settings.loss,
            config.run.seed, cache_bytes=int(settings.cache_gib * 2**30) if cached else 0,
        )  # fmt: skip
        self.losses: list[float] = []
        self._times: list[tuple[float, ...]] = []

    def __enter__(self) -> _Way:
        self._unfrozen = unfrozen(self._part)
        self._unfrozen.__enter__()
        self._engine = TorchEngine(self._part.parameters, self._part.groups(0.01), self._lr)
        return self

    def __exit__(self, *error: object) -> None:
        self._unfrozen.__exit__(None, None, None)

    def step(self, number: int) -> None:
        times = [time.perf_counter()]
        loss = self._loss(number)
        times.append(time.perf_counter())
        self._engine.backward(loss)
        times.append(time.perf_counter())
        self._engine.step()
        times.append(time.perf_counter())
        self.losses.append(float(loss.detach()))
        self._times.append((*np.diff(times).tolist(), times[-1] - times[0]))

    def medians(self) -> dict[str, float]:
        return dict(zip(("loss_s", "backward_s", "update_s", "step_s"), np.median(self._times, 0).tolist(), strict=True))


# -------------------------------------------------------------------------------------- performers


@dataclass(frozen=True)
class _Run:
    """What one command did."""

    performers: int
    seconds: float
    """From its start to its end."""
    training_s: float
    """Inside the phases of training, summed over performers."""
    clips: int
    next_starts_s: list[float]


def _row(way: str, some: list[_Run]) -> dict[str, Any]:
    sums = {name: sum(getattr(run, name) for run in some) for name in ("performers", "clips", "seconds", "training_s")}
    return {"way": way, **sums, "samples_per_s": sums["clips"] / sums["seconds"]}


def _many(folder: Path, full: bool) -> dict[str, list[_Run]]:
    """The commands of one performer before and after those of several, half each, so that a machine that changes its pace favours neither."""
    runs: dict[str, list[_Run]] = {"plain": [], "sequential": [], "2 in one session": [], "4 in one session": []}
    for name in _NAMES[:2]:
        runs["plain"].append(_timed(folder, f"plain-{name}", [name], full, _plain))
        runs["sequential"].append(_timed(folder, f"one-{name}", [name], full, partial(_command, "finetune")))
    for count in (4, 2):
        runs[f"{count} in one session"].append(_timed(folder, f"session-{count}", _NAMES[:count], full, partial(_command, "finetune")))
    for name in _NAMES[2:]:
        runs["sequential"].append(_timed(folder, f"one-{name}", [name], full, partial(_command, "finetune")))
        runs["plain"].append(_timed(folder, f"plain-{name}", [name], full, _plain))
    return runs


def _timed(folder: Path, run: str, names: Sequence[str], full: bool, command: Any) -> _Run:
    """A command in a run folder of its own, with the shards in it already."""
    job = _job(folder, run, names, full)
    layout = RunLayout.of(job.config())
    shutil.copytree(folder / "shards" / "shards", layout.root / "shards")
    start = time.monotonic()
    command(job)
    seconds = time.monotonic() - start
    cards = {name: json.loads((layout.finetune(name) / "card.json").read_text())["phases"] for name in names}
    phases = [phase for card in cards.values() for phase in card.values()]
    clips = sum(card["denoiser"]["steps"] for card in cards.values())
    return _Run(len(names), seconds, sum(phase["seconds"] for phase in phases), clips, _next_starts(layout.root / "tracking.jsonl", cards))


def _next_starts(events_file: Path, cards: dict[str, dict[str, Any]]) -> list[float]:
    """Of those that found a used actor: the k-th to start takes the actor of the (k - _CONCURRENT)-th to end."""
    if len(cards) <= _CONCURRENT:
        return []
    events = [json.loads(line) for line in events_file.read_text().splitlines()]
    begun = [(e["time_s"], e["key"].rpartition("/")[2]) for e in events if e["event"] == "start" and e["key"] != "batch"]
    ended = [e["time_s"] for e in events if e["event"] == "finish" and e["key"] != "batch"]
    return [at + cards[name]["denoiser"]["start_s"] - end for (at, name), end in zip(begun[_CONCURRENT:], ended, strict=False)]


@dataclass(frozen=True)
class _Job:
    """A config file and `--set`s, as a user gives them."""

    path: Path
    overrides: tuple[str, ...]

    def config(self) -> Config:
        return load(self.path, self.overrides)


def _job(folder: Path, run: str, names: Sequence[str], full: bool) -> _Job:
    """tiny.toml with some of the performers and, unless `full`, fewer steps."""
    sets = [f"run.root={folder}", f"run.name={run}", "preprocess.num_actors=2", "tracking.kind=file", f"finetune.max_concurrent={_CONCURRENT}"]
    sets += [] if full else ["finetune.max_steps=20", "finetune.decoder.steps=5"]
    path = folder / f"{run}.toml"
    path.write_text(Path("jobs/configs/tiny.toml").read_text() + "".join(_PERFORMER.format(name=name, **_PERFORMERS[name]) for name in names))
    return _Job(path, tuple(sets))


def _command(stage: str, job: _Job) -> None:
    """`dpscale STAGE` in a new process, which starts its own Ray."""
    sets = [argument for override in job.overrides for argument in ("--set", override)]
    _run(["-c", "import sys; from jobs.cli import main; sys.exit(main())", stage, str(job.path), *sets])


def _plain(job: _Job) -> None:
    """This file in a new process, which calls finetune_performer."""
    _run(["-m", "benchmarks.finetune", "--plain", str(job.path), *job.overrides])


def _run(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments[:4])}: status {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def _finetune_plainly(path: str, *overrides: str) -> None:
    """Every performer of a config with all cores, without Ray: the same engine, the same results files."""
    from dpscale.finetune.checkpoint import settings_hash
    from dpscale.finetune.deepspeed_engine import deepspeed_engines
    from dpscale.finetune.performer import finetune_performer
    from dpscale.tracking.tracker import NullTracker

    os.environ.update(LOCAL_RANK="0", DS_ACCELERATOR="cpu")
    config = _Job(Path(path), overrides).config()
    layout = RunLayout.of(config)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    model, engines = load_model(config.diffusion), deepspeed_engines(config, 1)
    for performer in config.performers:
        settings = settings_hash(config, layout.shard(performer.name, "main"))
        finetune_performer(config, layout, performer.name, model, engines, NullTracker(), settings)


def _alone(function: Any, *given: Any) -> Any:
    """One measurement in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *given).result()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--plain"]:
        _finetune_plainly(*sys.argv[2:])
    else:
        main()
