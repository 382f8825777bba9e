"""One Ray task per video: score it and write its files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError, Outcome
from dpscale.evaluate.frame_metrics import KeypointDetector
from dpscale.evaluate.one_video import artifacts, evaluate_video
from dpscale.tracking.tracker import Tracker

STAGE = "evaluate"
MAX_RETRIES = 2
"""Of a video whose process died; an error that it raised would only be raised again."""


@dataclass(frozen=True)
class _Finished:
    outcome: Outcome
    record: dict[str, Any] | None = None


def _evaluate_one(config: Config, layout: RunLayout, video: VideoConfig, detect: KeypointDetector | None) -> _Finished:
    started, name = time.monotonic(), layout.video_name(video)
    try:
        evaluated = evaluate_video(config, layout, video, detect)
    except InputError as error:
        return _Finished(Outcome(STAGE, name, time.monotonic() - started, str(error)))
    except Exception as error:  # one bad video must not stop the others
        return _Finished(Outcome(STAGE, name, time.monotonic() - started, f"{type(error).__name__}: {error}"))
    return _Finished(Outcome(STAGE, name, time.monotonic() - started, skipped=evaluated.skipped), evaluated.record)


# The function keeps its name beside the task made from it: so it travels to workers by its name, not as code.
_evaluation = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(_evaluate_one)


def evaluate(
    config: Config,
    layout: RunLayout,
    videos: Sequence[VideoConfig],
    tracker: Tracker,
    detect_keypoints: KeypointDetector | None = None,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Evaluates `videos`, all at once; outcomes in their order. Ray must be initialised.

    `detect_keypoints` is sent to the tasks (so it must pickle); without it there are no keypoint metrics.
    `on_outcome` is called as each video ends."""
    started = {_evaluation.remote(config, layout, video, detect_keypoints): video for video in videos}
    outcomes: dict[str, Outcome] = {}
    waiting = list(started)
    while waiting:
        (ready,), waiting = ray.wait(waiting, num_returns=1)
        finished = _collect(ready, layout, started[ready])
        if not finished.outcome.skipped:
            _track(tracker, config, layout, started[ready], finished)
        outcomes[finished.outcome.name] = finished.outcome
        on_outcome(finished.outcome)
    return [outcomes[layout.video_name(video)] for video in videos]


def _collect(reference: ray.ObjectRef, layout: RunLayout, video: VideoConfig) -> _Finished:
    try:
        return ray.get(reference)
    except RayError as error:
        return _Finished(Outcome(STAGE, layout.video_name(video), 0.0, f"the process that evaluated it died: {error}"))


def _track(tracker: Tracker, config: Config, layout: RunLayout, video: VideoConfig, finished: _Finished) -> None:
    params = {"performer": video.performer, "drive": video.drive, **config.evaluate.model_dump(mode="json")}
    key = tracker.start(STAGE, layout.video_name(video), params)
    if finished.record is None:
        tracker.finish(key, "FAILED")
        return
    methods = finished.record["methods"] | {"truth": finished.record["floor"]}
    values = {f"{method}/{metric}": value for method, scores in methods.items() for metric, value in scores.items() if value is not None}
    tracker.metrics(key, values, step=0)
    for path in artifacts(layout.videos(video)):
        tracker.artifact(key, path, "videos" if path.suffix == ".mp4" else "pictures")
    tracker.finish(key, "FINISHED")
