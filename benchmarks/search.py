"""What does a search over the refresh interval cost, and does it choose as the full grid does?

Three people (the filmed man of pose2sim, two rendered ones), five intervals, METHOD's 10,000 steps scaled down to 160: 250, 500, 1000, 2000
and one refresh only become 4, 8, 16, 32, 160. First every trial by itself, in a folder of its own: the full grid without sharing. Then
`dpscale search` of the same points. Work is counted in field steps and denoiser calls, each at the seconds that the grid measured for it.

`compute_fraction`: the search's work as part of the grid's. What is missing to 1 is split: `early_stopping` is what trials that were left
behind did not do, `prefix_sharing` what trials did not compute because another had. `equal_bits`: finished trials of both, frame for frame.
`--full`, a quarter of an hour: 2,000 steps, the intervals 50, 100, 200, 400 and one refresh, and both rendered people at half and
twice the length too.
`--folder DIR` keeps the run and goes on with one."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import arguments, finish, show
from dpscale.config.load import load
from dpscale.config.schema import Config
from dpscale.config.sources import RenderedPerformer
from dpscale.data.checkpoint import marker_of
from dpscale.data.layout import RunLayout
from dpscale.diffusion.weights import load_model
from dpscale.finetune.process import prepare_process
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.loop import optimise_on_disk
from dpscale.joint.refresh import DiffusionRefresh, PerformerWeights
from dpscale.joint.video import fingerprint, load_task
from dpscale.search.cost import calls_of, whole_steps
from dpscale.search.objective import judge
from dpscale.search.program import Work, alone, together
from dpscale.search.record import Row, chosen
from dpscale.search.space import INTERVAL, points
from dpscale.search.trial import Trial, Trials, held_out_frames
from dpscale.tracking.tracker import NullTracker
from jobs.cluster_session import ray_session
from jobs.pipeline import run_stages
from jobs.settings import CONFIGS

SCALED = (
    "joint.steps=160", "joint.warm_up_steps=30", "search.space.joint.refresh_interval=[4, 8, 16, 32, 160]",
    "field.lr_milestones=[80, 112, 136]", "scheduler.slice_steps=100",
)  # fmt: skip
SHORT = ("finetune.max_steps=40", "finetune.decoder.steps=30", "preprocess.fit_steps=120", "performers.1.num_frames=60", "performers.2.num_frames=60")

LENGTHS = (38, 152)
"""Frames of the further videos of `--full`, of which the last fifth is held out."""


@dataclass(frozen=True)
class Piece:
    """One trial of the full grid."""

    config: Config
    number: int
    trial: Trial

    @property
    def folder(self) -> Path:
        return RunLayout.of(self.config).root / "grid" / self.trial.layout.trial


def main() -> None:
    given = arguments(
        __doc__ or "",
        folder={"type": Path, "metavar": "DIR", "help": "keeps the run there, or continues it; none: a temporary one"},
        strength_to={"type": float, "default": 0.3, "help": "noise strength of the last of several refreshes; a single one has 0.7"},
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="dpscale-bench-") if given.folder is None else nullcontext(given.folder) as folder:
        root = Path(folder).resolve()
        config = _config(root, given.full, given.strength_to)
        os.environ["OMP_NUM_THREADS"] = str(config.ray.torch_threads)  # as Ray's workers have it: of processes that are started from here
        if run_stages(config, ["preprocess", "finetune"]):
            raise RuntimeError("a performer could not be trained: see above")
        pieces = _pieces(config)
        started = time.monotonic()
        with multiprocessing.get_context("spawn").Pool(min(config.search.max_concurrent, os.cpu_count() or 1)) as pool:
            grid = pool.map(run_alone, pieces, chunksize=1)
        between = time.monotonic()
        rows = _searched(config)
        seconds = {"grid_wall_s": between - started, "search_wall_s": time.monotonic() - between}
        result = summary(config, pieces, grid, rows) | seconds
    show("search: the full grid", [_told(row) for row in grid])
    finish("search", given.json, {**result, "grid": [_told(row) for row in grid], "settings": _settings(config)}, [_told(row) for row in rows])


def _config(root: Path, full: bool, strength_to: float) -> Config:
    """Strengths as METHOD.md has them, unless told otherwise: 0.7 to 0.3."""
    own = (f'run.root="{root}"', f"joint.strength_to={strength_to}", *(() if full else (*SCALED, *SHORT)))
    config = load(CONFIGS / "search.toml", [*own, "field.samples=2048", "field.flow_samples=512", "tracking.kind=none"])
    if not full:
        return config
    rendered = [each for each in config.performers if isinstance(each, RenderedPerformer)]
    others = [each.model_copy(update={"name": f"{each.name}-{n}", "num_frames": n}) for each in rendered for n in LENGTHS]
    return config.model_copy(update={"performers": (*config.performers, *others)})


def _pieces(config: Config) -> list[Piece]:
    """Every trial, the longest first: so two processes end at nearly the same time."""
    layout, found = RunLayout.of(config), points(config)
    assert found is not None
    for video in config.planned_videos():
        load_task(config, layout, video)  # decodes the inputs that all trials read
    pieces = [Piece(config, n, Trial.of(config, layout, video, point)) for video in config.planned_videos() for n, point in enumerate(found)]
    return sorted(pieces, key=lambda piece: -piece.trial.cost(layout))


def run_alone(piece: Piece) -> Row:
    """The trial from its first step to its last, with nothing of any other."""
    prepare_process(piece.config)
    trial, layout = piece.trial, RunLayout.of(piece.config)
    task, store = load_task(trial.config, trial.layout, trial.video), VideoStore(piece.folder, fingerprint(trial.config, trial.layout, trial.video))
    model = load_model(trial.config.diffusion)
    PerformerWeights(model).use(trial.layout.finetune(trial.video.performer))
    if not store.has_result():
        optimise_on_disk(task, store, DiffusionRefresh(model, task), lambda *_: None)
    with np.load(piece.folder / "result" / "frames.npz") as made:
        judged = judge(
            made["ivr_opt"], Trials(piece.config, layout).case(trial.video), piece.config.search.objective, trial.config.evaluate.body_dilation_px
        )
    history = json.loads((piece.folder / "result" / "history.json").read_text())
    spent = {"field_s": history["field_s"], "refresh_s": sum(entry["seconds"] for entry in history["refreshes"])}
    return Row(
        task.name, piece.number, {INTERVAL: trial.config.joint.refresh_interval}, **vars(judged), **spent, cost=trial.cost(layout),
        step=trial.config.joint.steps, ended=True, operations=len(trial.program.operations), computed_steps=whole_steps(trial.config),
    )  # fmt: skip


def _searched(config: Config) -> list[Row]:
    with ray_session(config.ray):
        from dpscale.search.on_ray import search

        return search(config, RunLayout.of(config), config.planned_videos(), points(config) or (), NullTracker())


def summary(config: Config, pieces: Sequence[Piece], grid: Sequence[Row], rows: Sequence[Row]) -> dict[str, Any]:
    layout, price = RunLayout.of(config), config.search.objective.price_db
    of = {(layout.video_name(piece.trial.video), piece.number): piece.trial for piece in pieces}
    whole = [(of[row.video, row.point], row.operations) for row in grid]
    reached = [(of[row.video, row.point], row.operations) for row in rows]
    frames = {layout.video_name(piece.trial.video): held_out_frames(layout, piece.trial.video) for piece in pieces}
    full, stopped, shared = _work(whole, frames, alone), _work(reached, frames, alone), _work(reached, frames, together)
    step_s, call_s = _seconds(grid, full)

    def cost_s(work: dict[str, int]) -> float:
        return work["steps"] * step_s + work["calls"] * call_s

    best = {name: chosen(found, price) for name, found in (("grid", grid), ("search", rows))}
    intervals = {name: {video: _interval(grid, video, choice.recommended) for video, choice in found.items()} for name, found in best.items()}
    return {
        "same_choice": intervals["grid"] == intervals["search"],
        "compute_fraction": cost_s(shared) / cost_s(full),
        "early_stopping": 1 - cost_s(stopped) / cost_s(full),
        "prefix_sharing": (cost_s(stopped) - cost_s(shared)) / cost_s(full),
        "recommended": intervals,
        "equal_bits": all(_same_frames(piece, row) for row in rows if row.ended for piece in pieces if of[row.video, row.point] is piece.trial),
        "computed_as_planned": (sum(row.computed_steps for row in rows), sum(row.computed_refreshes for row in rows))
        == (shared["steps"], shared["refreshes"]),
        "work": {"grid": full, "search_without_sharing": stopped, "search": shared},
        "step_s": step_s,
        "call_s": call_s,
        "steps_per_call": call_s / step_s,
    }


def _seconds(grid: Sequence[Row], full: dict[str, int]) -> tuple[float, float]:
    """Of a field step, as the runs with one refresh took it; of a denoiser call, with all that a refresh needs beside it: V_s rendered and
    encoded, V_p decoded."""
    longest = max(row.settings[INTERVAL] for row in grid)
    quiet = [row for row in grid if row.settings[INTERVAL] == longest]
    step_s = sum(row.field_s for row in quiet) / sum(row.computed_steps for row in quiet)
    return step_s, (sum(row.field_s + row.refresh_s for row in grid) - step_s * full["steps"]) / full["calls"]


def _work(trials: Sequence[tuple[Trial, int]], frames: dict[str, int], count) -> dict[str, int]:
    """Of each video by itself: nothing is shared between videos."""
    total = {"steps": 0, "calls": 0, "refreshes": 0}
    for video, num_frames in frames.items():
        work: Work = count([(trial.program, reached) for trial, reached in trials if trial.layout.video_name(trial.video) == video])
        total["steps"] += work.steps
        total["calls"] += calls_of(work.answers, num_frames)
        total["refreshes"] += len(work.answers)
    return total


def _interval(rows: Sequence[Row], video: str, point: int | None) -> int | None:
    return next((row.settings[INTERVAL] for row in rows if (row.video, row.point) == (video, point)), None)


def _same_frames(piece: Piece, row: Row) -> bool:
    folders = (piece.folder / "result", piece.trial.layout.joint(piece.trial.video) / "result")
    assert all(marker_of(folder) is not None for folder in folders), f"{row.video} {row.settings} ended without a result"
    one, two = (np.load(folder / "frames.npz") for folder in folders)
    return sorted(one.files) == sorted(two.files) and all(np.array_equal(one[name], two[name]) for name in one.files)


def _told(row: Row) -> dict[str, Any]:
    values = ("quality", "psnr_body", "warp_error", "cost", "field_s", "refresh_s")
    return {"video": row.video, "interval": row.settings[INTERVAL], "status": row.status, "step": row.step} | {
        name: getattr(row, name) for name in values
    }


def _settings(config: Config) -> dict[str, Any]:
    return {name: getattr(config, name).model_dump(mode="json") for name in ("joint", "field", "diffusion", "search")}


if __name__ == "__main__":
    main()
