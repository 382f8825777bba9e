"""The trials of a search as one Ray Tune run: Tune places, retries and records them; who goes on is decided by halving.py.

The driver may die at any time: what trials have computed is in their folders, and the same call goes on from there with Tuner.restore.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.logger import JsonLoggerCallback
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler
from ray.tune.search import Searcher

from dpscale.config.load import ConfigError
from dpscale.config.schema import AshaStopping, Config
from dpscale.config.sources import VideoConfig
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError
from dpscale.finetune.on_ray import finetune
from dpscale.finetune.process import TUNE_ENVIRONMENT, prepare_process, set_defaults
from dpscale.joint.state import JointState
from dpscale.joint.video import fingerprint
from dpscale.search.forking import position
from dpscale.search.halving import Halving, Stretch
from dpscale.search.pareto import price
from dpscale.search.population import Population, exchanges
from dpscale.search.record import Row
from dpscale.search.space import Settings, domains
from dpscale.search.trial import Trial, Trials, entrants, relatives
from dpscale.tracking.tracker import NullTracker, Tracker

STAGE = "search"
_TRIALS: dict[str, Trials] = {}
"""Of this process: with reused actors the next trial finds the model loaded."""


def search(config: Config, layout: RunLayout, videos: Sequence[VideoConfig], points: Sequence[Settings] | None, tracker: Tracker) -> list[Row]:
    """Tries every point on every video, or (None) those that Optuna suggests; a row each, in order of videos and points. Ray must be initialised.

    Performers must be preprocessed and finetuned. A trial that fails is tried `search.max_failures` times more, then its row says why."""
    set_defaults(TUNE_ENVIRONMENT)
    _finetune_otherwise(config, layout, videos, points or ())
    source, most = _source(config, layout, videos, points)
    rows = _rows(_tuner(config, layout, videos, points, source, most, tracker).fit(), videos, layout)
    for row in rows:
        key = tracker.start(STAGE, _run_name(row.video, row.point), {})
        tracker.finish(key, "FAILED" if row.error else "FINISHED")
    return rows


def _finetune_otherwise(config: Config, layout: RunLayout, videos: Sequence[VideoConfig], points: Sequence[Settings]) -> None:
    """Models of finetunings that only points ask for: once each, shared by all trials of a performer. Trials tell of those that failed."""
    trials = (Trial.of(config, layout, videos[0], point) for point in points)
    for trial in {trial.layout.models: trial for trial in trials if trial.layout.models is not None}.values():
        finetune(trial.config, trial.layout, sorted({video.performer for video in videos}), NullTracker())


def _source(config: Config, layout: RunLayout, videos: Sequence[VideoConfig], points: Sequence[Settings] | None) -> tuple[_Source, int]:
    """Who says what is to be run next, and how many stretches that may be."""
    names, searcher, stopping = [layout.video_name(video) for video in videos], config.search.searcher, config.search.stopping
    if searcher.kind == "optuna":
        from dpscale.search.studies import Studies  # brings optuna along

        return Studies(names, domains(config.search), searcher.num_points, config.run.seed), len(names) * searcher.num_points
    if stopping.kind == "pbt":
        steps = exchanges(config.joint.steps, stopping.exchange_every)
        population = Population(names, points or (), steps, stopping, domains(config.search), config.search.objective.price_db, config.run.seed)
        return population, len(names) * len(points or ()) * (len(steps) + 1)
    entered = entrants(config, layout, videos, points or ())
    if any(len(entrant.keys) != len(entered[0].keys) for entrant in entered):
        raise ConfigError("search.space.joint.steps: the runs are too different in length to be compared at the same parts of them")
    halving = stopping.kind == "halving"
    num_rungs = len(entered[0].keys) if halving else 0
    return Halving(entered, num_rungs, stopping.reduction if halving else 2.0), len(entered) * (num_rungs + 1)


def _tuner(
    config: Config, layout: RunLayout, videos: Sequence[VideoConfig], points: Sequence[Settings] | None, source: _Source, most: int, tracker: Tracker
) -> tune.Tuner:
    """The search's one Tune run, or its continuation."""
    storage, name = layout.search / "tune", _run_id(config, layout, videos)
    trial = tune.with_parameters(_trial, config=config, layout=layout, points=points, tracker=tracker)
    placed = tune.with_resources(trial, {"CPU": config.search.trial_cpus, "GPU": config.search.trial_gpus})
    if tune.Tuner.can_restore(storage / name) and any((storage / name).glob("experiment_state-*.json")):
        return tune.Tuner.restore(str(storage / name), placed, resume_unfinished=True)
    shutil.rmtree(storage / name, ignore_errors=True)  # killed before Tune had written anything down
    return tune.Tuner(
        placed,
        tune_config=tune.TuneConfig(
            search_alg=_Suggestions(source, config.search.max_concurrent),
            scheduler=_AshaOfVideos(config.search.stopping) if config.search.stopping.kind == "asha" else None,
            num_samples=most,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(storage),
            verbose=0,
            callbacks=[JsonLoggerCallback()],
            failure_config=tune.FailureConfig(max_failures=config.search.max_failures),
        ),
    )


def _run_id(config: Config, layout: RunLayout, videos: Sequence[VideoConfig]) -> str:
    """Changes with whatever decides the rows: a search of other settings is another Tune run."""
    asked = config.search.model_dump(mode="json", include={"space", "searcher", "stopping", "objective"})
    asked |= {"dilation": config.evaluate.body_dilation_px, "videos": [fingerprint(config, layout, video) for video in videos]}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _run_name(video: str, point: int) -> str:
    return f"{video}-{point:03d}"


@runtime_checkable
class _Source(Protocol):
    """What is to be run next (halving.Halving, population.Population, studies.Studies)."""

    @property
    def exhausted(self) -> bool: ...
    def next(self) -> Stretch | None: ...
    def take(self, video: str, point: int) -> Stretch: ...
    def done(self, stretch: Stretch, quality: float | None, cost: float) -> None: ...


class _Suggestions(Searcher):
    """A source as Tune asks for it, at most `max_concurrent` at once.

    What is saved is what happened, in its order: after a restart the source is told it again."""

    def __init__(self, source: _Source, max_concurrent: int) -> None:
        super().__init__()
        self._source, self._max_concurrent = source, max_concurrent
        self._running: dict[str, Stretch] = {}
        self._events: list[dict[str, Any]] = []

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._source.exhausted:
            return Searcher.FINISHED
        stretch = self._source.next() if len(self._running) < self._max_concurrent else None
        if stretch is None:
            return None
        self._running[trial_id] = stretch
        self._events.append({"trial": trial_id, "video": stretch.video, "point": stretch.point})
        return {"video": stretch.video, "point": stretch.point, "rung": stretch.rung, "settings": json.dumps(dict(stretch.settings))}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        stretch = self._running.pop(trial_id, None)
        if stretch is None:  # suggested so shortly before the driver died that it was not written down
            return
        measured = result is not None and not error and not result.get("error")
        quality = result["quality"] if measured else None
        self._source.done(stretch, quality, result["cost"] if measured else 0.0)
        self._events.append({"trial": trial_id, "quality": quality, "cost": result["cost"] if measured else 0.0})

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text(json.dumps(self._events))

    def restore(self, checkpoint_path: str) -> None:
        self._events = json.loads(Path(checkpoint_path).read_text())
        for event in self._events:
            if "point" in event:
                self._running[event["trial"]] = self._source.take(event["video"], event["point"])
            else:
                self._source.done(self._running.pop(event["trial"]), event["quality"], event["cost"])


class _AshaOfVideos(FIFOScheduler):
    """Ray's ASHA, a bracket for each video: a difficult one does not lose to an easy one. Measured along the part of the steps that is done."""

    def __init__(self, settings: AshaStopping) -> None:
        super().__init__()
        self._settings = settings
        self._of: dict[str, AsyncHyperBandScheduler] = {}

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        self._asha(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        return FIFOScheduler.CONTINUE if result.get("error") else self._asha(trial).on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        if not result.get("error"):
            self._asha(trial).on_trial_complete(tune_controller, trial, result)

    def _asha(self, trial: TuneTrial) -> AsyncHyperBandScheduler:
        video = trial.config["video"]
        if video not in self._of:
            first, reduction = self._settings.first_rung, self._settings.reduction
            self._of[video] = AsyncHyperBandScheduler("part", "worth", "max", max_t=1.0, grace_period=first, reduction_factor=reduction)
        return self._of[video]


# --------------------------------------------------------------------------------------- one trial


def _trial(task: dict[str, Any], config: Config, layout: RunLayout, points: Sequence[Settings] | None, tracker: Tracker) -> None:
    """One stretch of a trial; for ASHA all of them, with a report at each. Bad input is a result, not an exception: Tune retries exceptions."""
    prepare_process(config)
    try:
        stretch = _Running(task, config, layout, points, tracker)
        last = len(stretch.trial.rungs) if config.search.stopping.kind != "none" else 0
        for rung in range(last + 1) if config.search.stopping.kind == "asha" else [task["rung"]]:
            tune.report(stretch.to(rung, ended=rung == last) | {"error": ""})
    except (InputError, ConfigError) as bad_input:
        tune.report({"error": str(bad_input)})


class _Running:
    """A trial in this process."""

    def __init__(self, task: Mapping[str, Any], config: Config, layout: RunLayout, points: Sequence[Settings] | None, tracker: Tracker) -> None:
        self._started = time.monotonic()
        video = next(video for video in config.planned_videos() if layout.video_name(video) == task["video"])
        settings = json.loads(task["settings"])
        self._trials, self.trial = _trials(config, layout), Trial.of(config, layout, video, settings)
        self._run = self._trials.run(self.trial, relatives(config, layout, video, settings, points))
        self._cost, self._price_db = self.trial.cost(layout), config.search.objective.price_db
        self._tracker, self._key = tracker, tracker.start(STAGE, _run_name(task["video"], task["point"]), settings)
        self._told = self.trial.rungs[task["rung"] - 1] if task["rung"] > 0 else -self.trial.config.joint.warm_up_steps
        """The last step whose losses are in the tracker."""

    def to(self, rung: int, ended: bool) -> dict[str, Any]:
        """Takes the trial to a rung, or to its end, and measures it there."""
        trials, trial = self._trials, self.trial
        state = self._run.to_end() if ended else self._run.to_step(trial.rungs[rung])
        judged = trials.judge_result(trial, state) if ended else trials.judge_field(trial, state)
        values = {**vars(judged), "cost": self._cost}
        self._tell(state, values | trial.in_force(state.step))
        return values | {
            "worth": judged.quality - price(self._cost, self._price_db),
            "part": 1.0 if ended else state.step / trial.config.joint.steps,
            "step": state.step,
            "ended": ended,
            "operations": position(state),
            "field_s": state.history.field_s,
            "refresh_s": sum(entry["seconds"] for entry in state.history.refreshes),
            "computed_steps": self._run.spent.steps,
            "computed_refreshes": self._run.spent.refreshes,
            "wall_s": time.monotonic() - self._started,
        }

    def _tell(self, state: JointState, values: Mapping[str, float]) -> None:
        for entry in state.history.losses:
            if entry["step"] > self._told:
                self._tracker.metrics(self._key, {name: value for name, value in entry.items() if name != "step"}, int(entry["step"]))
        self._told = state.step
        self._tracker.metrics(self._key, values, state.step)


def _trials(config: Config, layout: RunLayout) -> Trials:
    key = f"{layout.root}\x1f{config.model_dump_json()}"
    if key not in _TRIALS:
        _TRIALS.clear()
        _TRIALS[key] = Trials(config, layout)
    return _TRIALS[key]


# ----------------------------------------------------------------------------------------- results


def _rows(results: tune.ResultGrid, videos: Sequence[VideoConfig], layout: RunLayout) -> list[Row]:
    """The farthest stretch of each trial; what all its stretches computed is added up."""
    stretches: dict[tuple[str, int], list[tune.Result]] = {}
    for result in results:
        stretches.setdefault((result.config["video"], result.config["point"]), []).append(result)
    order = [layout.video_name(video) for video in videos]
    return [_row(video, point, stretches[video, point]) for video, point in sorted(stretches, key=lambda trial: (order.index(trial[0]), trial[1]))]


def _row(video: str, point: int, stretches: Sequence[tune.Result]) -> Row:
    by_rung = sorted(stretches, key=lambda result: result.config["rung"])
    found = [result.metrics for result in by_rung if result.error is None and result.metrics and not result.metrics.get("error")]
    errors = [_error(result) for result in by_rung]
    computed = {name: sum(one[name] for one in found) for name in ("computed_steps", "computed_refreshes", "wall_s")}
    known = {name: value for name, value in (found[-1] if found else {}).items() if name in Row.MEASURED} | computed
    settings = json.loads(by_rung[-1].config["settings"])
    return Row(video=video, point=point, settings=settings, error=next(filter(None, errors), ""), **known)


def _error(result: tune.Result) -> str:
    if result.error is not None:
        return str(result.error).strip().splitlines()[-1]
    return (result.metrics or {}).get("error", "it reported nothing")
