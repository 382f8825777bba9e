"""One point of the space tried on one video: where it lives, how it is run in this process, and how it is judged."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from dpscale.config.schema import Config, DiffusionConfig, FieldConfig, JointConfig
from dpscale.config.sources import VideoConfig
from dpscale.data.layout import RunLayout, safe_name
from dpscale.data.shards import ShardReader, read_clip
from dpscale.data.types import InputError
from dpscale.diffusion.weights import PoseVideoModel, load_model
from dpscale.evaluate.study import Case, case_of
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.refresh import DiffusionRefresh, PerformerWeights
from dpscale.joint.state import JointState, RefreshRequest
from dpscale.joint.video import VideoTask, fingerprint, load_task
from dpscale.search.cost import cost
from dpscale.search.forking import ForkedRun
from dpscale.search.halving import Entrant, rungs
from dpscale.search.objective import Judged, judge
from dpscale.search.pareto import price
from dpscale.search.population import exchanges
from dpscale.search.program import Program, forks, program
from dpscale.search.space import INTERVAL, Settings, applied, domains


@dataclass(frozen=True)
class TrialLayout(RunLayout):
    """A run's layout in which one trial has a folder of its own; shards, and models of equal finetuning, are the run's."""

    trial: str
    models: str | None
    """Names the folder of models that were finetuned otherwise than the run's; None: the run's."""

    def joint(self, video: VideoConfig) -> Path:
        return self.search / "trials" / self.video_name(video) / self.trial

    def finetune(self, performer: str) -> Path:
        return super().finetune(performer) if self.models is None else self.search / "models" / self.models / safe_name(performer)

    def prefixes(self, video: VideoConfig) -> Path:
        """Folder of the states that trials of a video share."""
        return self.search / "prefixes" / self.video_name(video)


@dataclass(frozen=True)
class Trial:
    video: VideoConfig
    run_config: Config
    """Of the search."""
    config: Config
    """The same with the trial's settings."""
    layout: TrialLayout

    @classmethod
    def of(cls, config: Config, layout: RunLayout, video: VideoConfig, settings: Settings) -> Trial:
        own = applied(config, settings)
        models = None if own.finetune == config.finetune else hashlib.sha256(own.finetune.model_dump_json().encode()).hexdigest()[:16]
        unnamed = TrialLayout(layout.root, "", models)
        return cls(video, config, own, replace(unnamed, trial=fingerprint(own, unnamed, video)[:20]))

    @cached_property
    def program(self) -> Program:
        """Of what decides the frames, the sections that the program takes apart are left out of the hash of its inputs."""
        rest = self.config.model_copy(update={"field": FieldConfig(), "joint": JointConfig(), "diffusion": DiffusionConfig()})
        return program(self.config, fingerprint(rest, self.layout, self.video))

    @property
    def rungs(self) -> list[int]:
        """Steps at which the trial may rest and is compared."""
        stopping, steps = self.run_config.search.stopping, self.config.joint.steps
        if stopping.kind == "pbt":
            return exchanges(steps, stopping.exchange_every)
        return [] if stopping.kind == "none" else rungs(steps, stopping.first_rung, stopping.reduction)

    def in_force(self, step: int) -> dict[str, float]:
        """Settings that the search may change on the way, as they are at a field step."""
        if self.run_config.search.stopping.kind != "pbt":
            return {}
        now = self.config.joint.at(step)
        return {key: getattr(now, key.removeprefix("joint.")) for key in domains(self.run_config.search)}

    def cost(self, layout: RunLayout) -> float:
        """Of the whole trial alone, in denoiser calls (see cost.py)."""
        return cost(self.config, held_out_frames(layout, self.video), self.run_config.search.objective)


def relatives(config: Config, layout: RunLayout, video: VideoConfig, settings: Settings, points: Sequence[Settings] | None) -> list[Trial]:
    """The trials with which one may share its beginning: all points where they are known, else those that differ in the interval alone."""
    if points is None:
        intervals = domains(config.search).get(INTERVAL, ())
        points = [{**settings, INTERVAL: value} for value in intervals] if isinstance(intervals, tuple) else []
    return [Trial.of(config, layout, video, point) for point in points]


def held_out_frames(layout: RunLayout, video: VideoConfig) -> int:
    """How many frames a self-driven video has: those that did not train."""
    reader = ShardReader(layout.shard(video.performer, "main"))
    return len(reader) - reader.num_train


def entrants(config: Config, layout: RunLayout, videos: Sequence[VideoConfig], points: Sequence[Settings]) -> list[Entrant]:
    """Every point for every video, as halving takes them."""
    found = []
    for video in videos:
        for number, point in enumerate(points):
            trial = Trial.of(config, layout, video, point)
            keys = tuple(trial.program.keys[trial.program.after_step(step)] for step in trial.rungs)
            cost_db = price(trial.cost(layout), config.search.objective.price_db)
            found.append(Entrant(layout.video_name(video), number, cost_db, keys, point))
    return found


class Trials:
    """Runs trials in this process: the base model is loaded once, performers' weights and videos' conditions stay while they are used."""

    def __init__(self, config: Config, layout: RunLayout) -> None:
        self._config, self._layout = config, layout
        self._device = "cuda" if config.scheduler.field_gpus > 0 else "cpu"
        self._refreshes: OrderedDict[tuple[str, str, Path], DiffusionRefresh] = OrderedDict()
        self._cases: OrderedDict[str, Case] = OrderedDict()

    def run(self, trial: Trial, related: Sequence[Trial]) -> ForkedRun:
        """The trial's run, not yet begun."""
        task = load_task(trial.config, trial.layout, trial.video)
        store = VideoStore.of(trial.config, trial.layout, trial.video)

        def refresh(request: RefreshRequest) -> np.ndarray:
            self._weights.use(trial.layout.finetune(trial.video.performer))
            every_s = trial.config.scheduler.refresh_checkpoint_s
            return self._refresh(trial, task).resumed(request, store.unfinished(request.refresh), every_s)

        shared = forks(trial.program, [other.program for other in related], trial.rungs)
        if self._config.search.stopping.kind == "pbt":  # whoever goes on from there is not known yet
            shared = sorted({*shared, *(trial.program.after_step(step) for step in trial.rungs)})
        return ForkedRun(task, store, trial.program, shared, trial.layout.prefixes(trial.video), refresh, self._device)

    def judge_field(self, trial: Trial, state: JointState) -> Judged:
        """V_s as it is."""
        return self._judge(trial, state.field.render_all())

    def judge_result(self, trial: Trial, state: JointState) -> Judged:
        """V_p of the last refresh."""
        if state.targets is None:
            raise InputError(f"{trial.layout.joint(trial.video)} holds no result")
        return self._judge(trial, state.targets.numpy())

    def _judge(self, trial: Trial, frames: np.ndarray) -> Judged:
        return judge(frames, self.case(trial.video), self._config.search.objective, trial.config.evaluate.body_dilation_px)

    def case(self, video: VideoConfig) -> Case:
        name = self._layout.video_name(video)
        if name not in self._cases:
            self._cases[name] = case_of(read_clip(self._layout.shard(video.performer, "main")), None)
        return _newest(self._cases, name, 1)

    def _refresh(self, trial: Trial, task: VideoTask) -> DiffusionRefresh:
        key = (task.name, trial.config.diffusion.model_dump_json() + trial.config.joint.method, trial.layout.finetune(trial.video.performer))
        if key not in self._refreshes:
            self._refreshes[key] = DiffusionRefresh(self._model, task)
        return _newest(self._refreshes, key, self._config.scheduler.warm_videos)

    @cached_property
    def _model(self) -> PoseVideoModel:
        model = load_model(self._config.diffusion)
        if self._config.scheduler.refresh_gpus > 0:
            model.denoiser.cuda()
            model.autoencoder.cuda()
        return model

    @cached_property
    def _weights(self) -> PerformerWeights:
        return PerformerWeights(self._model)


def _newest(kept: OrderedDict, key, most: int):
    """The entry of a key, after those that were used longest ago are dropped."""
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
    return kept[key]
