"""The stages on Ray as functions of a batch. Each is imported when its turn comes: some bring torch along."""

from __future__ import annotations

from collections.abc import Callable

from dpscale.data.types import Outcome
from jobs.batch import Batch


def _preprocess(batch: Batch) -> list[Outcome]:
    from dpscale.preprocess.on_ray import preprocess

    return preprocess(batch.config, batch.layout)


def _finetune(batch: Batch) -> list[Outcome]:
    from dpscale.finetune.on_ray import finetune

    return finetune(batch.config, batch.layout, batch.performers(), batch.tracker)


def _optimize(batch: Batch) -> list[Outcome]:
    from dpscale.scheduler.on_ray import optimize
    from jobs.intervals import ready

    now = ready(batch)
    return [*optimize(batch.config, batch.layout, now.videos, batch.tracker), *now.failed]


def _evaluate(batch: Batch) -> list[Outcome]:
    from dpscale.evaluate.on_ray import evaluate
    from jobs.keypoint_detector import detect_keypoints

    return evaluate(batch.config, batch.layout, batch.videos(), batch.tracker, detect_keypoints)


ON_RAY: dict[str, Callable[[Batch], list[Outcome]]] = dict(preprocess=_preprocess, finetune=_finetune, optimize=_optimize, evaluate=_evaluate)
