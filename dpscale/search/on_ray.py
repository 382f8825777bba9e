"""The trials of a search as one Ray Tune run: Tune places, retries and records them; who goes on is decided by halving.py.

The driver may die at any time: what trials have computed is in their folders, and the same call goes on from there with Tuner.restore.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ray import tune
from ray.tune.logger import JsonLoggerCallback
from ray.tune.search import Searcher

from dpscale.config.load import ConfigError
from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError
from dpscale.finetune.process import TUNE_ENVIRONMENT, prepare_process, set_defaults
from dpscale.joint.video import fingerprint
from dpscale.search.forking import position
from dpscale.search.halving import Halving, Stretch
from dpscale.search.record import Row
from dpscale.search.space import Settings
from dpscale.search.trial import Trial, Trials, entrants, relatives
from dpscale.tracking.tracker import Tracker

log = logging.getLogger(__name__)

STAGE = "search"
_TRIALS: dict[str, Trials] = {}
"""Of this process: with reused actors the next trial finds the model loaded."""


def search(config: Config, layout: RunLayout, videos: Sequence[VideoConfig], points: Sequence[Settings], tracker: Tracker) -> list[Row]:
    """Tries every point on every video; a row each, in order of videos and points. Ray must be initialised.

    Performers must be preprocessed and finetuned. A trial that fails is tried `search.max_failures` times more, then its row says why."""
    set_defaults(TUNE_ENVIRONMENT)
    entered = entrants(config, layout, videos, points)
    stopping = config.search.stopping
    num_rungs = len(entered[0].keys) if stopping.kind == "halving" else 0
    if any(len(entrant.keys) != len(entered[0].keys) for entrant in entered):
        raise ConfigError("search.space.joint.steps: the runs are too different in length to be compared at the same parts of them")
    source = Halving(entered, num_rungs, stopping.reduction if stopping.kind == "halving" else 2.0)
    results = _tuner(config, layout, videos, points, source, len(entered) * (num_rungs + 1), tracker).fit()
    rows = _rows(results, [(entrant.video, entrant.point, entrant.settings) for entrant in entered])
    for row in rows:
        key = tracker.start(STAGE, _run_name(row.video, row.point), {})
        tracker.finish(key, "FAILED" if row.error else "FINISHED")
    return rows


def _tuner(config: Config, layout: RunLayout, videos: Sequence[VideoConfig], points, source, most: int, tracker: Tracker) -> tune.Tuner:
    """The search's one Tune run, or its continuation."""
    storage, name = layout.search / "tune", _run_id(config, layout, videos)
    trial = tune.with_parameters(_trial, config=config, layout=layout, points=points, tracker=tracker)
    placed = tune.with_resources(trial, {"CPU": config.search.trial_cpus, "GPU": config.search.trial_gpus})
    if tune.Tuner.can_restore(storage / name) and any((storage / name).glob("experiment_state-*.json")):
        return tune.Tuner.restore(str(storage / name), placed, resume_unfinished=True)
    shutil.rmtree(storage / name, ignore_errors=True)  # killed before Tune had written anything down
    return tune.Tuner(
        placed,
        tune_config=tune.TuneConfig(search_alg=_Suggestions(source, config.search.max_concurrent), num_samples=most, reuse_actors=True),
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
    """What is to be run next (halving.Halving)."""

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


# --------------------------------------------------------------------------------------- one trial


def _trial(task: dict[str, Any], config: Config, layout: RunLayout, points: Sequence[Settings] | None, tracker: Tracker) -> None:
    """One stretch of a trial. Bad input is a result, not an exception: Tune retries exceptions."""
    prepare_process(config)
    try:
        tune.report(_measured(task, config, layout, points, tracker) | {"error": ""})
    except InputError as bad_input:
        tune.report({"error": str(bad_input)})


def _measured(task: Mapping[str, Any], config: Config, layout: RunLayout, points: Sequence[Settings] | None, tracker: Tracker) -> dict[str, Any]:
    started = time.monotonic()
    video = next(video for video in config.planned_videos() if layout.video_name(video) == task["video"])
    settings = json.loads(task["settings"])
    trials, trial = _trials(config, layout), Trial.of(config, layout, video, settings)
    run = trials.run(trial, relatives(config, layout, video, settings, points))
    key = tracker.start(STAGE, _run_name(task["video"], task["point"]), settings)
    rungs = trial.rungs if config.search.stopping.kind == "halving" else []
    ended = task["rung"] >= len(rungs)
    state = run.to_end() if ended else run.to_step(rungs[task["rung"]])
    judged = trials.judge_result(trial, state) if ended else trials.judge_field(trial, state)
    before = rungs[task["rung"] - 1] if task["rung"] > 0 else -config.joint.warm_up_steps - 1
    for entry in state.history.losses:
        if entry["step"] > before:
            tracker.metrics(key, {name: value for name, value in entry.items() if name != "step"}, int(entry["step"]))
    values = {**vars(judged), "cost": trial.cost(layout)}
    tracker.metrics(key, values, state.step)
    return values | {
        "step": state.step,
        "ended": ended,
        "operations": position(state),
        "field_s": state.history.field_s,
        "refresh_s": sum(entry["seconds"] for entry in state.history.refreshes),
        "computed_steps": run.spent.steps,
        "computed_refreshes": run.spent.refreshes,
        "wall_s": time.monotonic() - started,
    }


def _trials(config: Config, layout: RunLayout) -> Trials:
    key = f"{layout.root}\x1f{config.model_dump_json()}"
    if key not in _TRIALS:
        _TRIALS.clear()
        _TRIALS[key] = Trials(config, layout)
    return _TRIALS[key]


# ----------------------------------------------------------------------------------------- results


def _rows(results: tune.ResultGrid, tried: Sequence[tuple[str, int, Settings]]) -> list[Row]:
    """The farthest stretch of each trial; what all its stretches computed is added up."""
    stretches: dict[tuple[str, int], list[tune.Result]] = {(video, point): [] for video, point, _ in tried}
    for result in results:
        stretches[result.config["video"], result.config["point"]].append(result)
    return [_row(video, point, settings, stretches[video, point]) for video, point, settings in tried]


def _row(video: str, point: int, settings: Settings, stretches: Sequence[tune.Result]) -> Row:
    by_rung = sorted(stretches, key=lambda result: result.config["rung"])
    found = [result.metrics for result in by_rung if result.error is None and result.metrics and not result.metrics.get("error")]
    errors = [_error(result) for result in by_rung]
    computed = {name: sum(one[name] for one in found) for name in ("computed_steps", "computed_refreshes", "wall_s")}
    known = {name: value for name, value in (found[-1] if found else {}).items() if name in Row.MEASURED} | computed
    missing = "" if stretches else "it was never run"
    return Row(video=video, point=point, settings=dict(settings), error=next(filter(None, errors), missing), **known)


def _error(result: tune.Result) -> str:
    if result.error is not None:
        return str(result.error).strip().splitlines()[-1]
    return (result.metrics or {}).get("error", "it reported nothing")
