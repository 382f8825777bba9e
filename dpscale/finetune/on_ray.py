"""Finetuning of many performers: Ray Tune outside, a Ray Train TorchTrainer for a performer with several workers, deepspeed_engine.py inside."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Sequence
from typing import Any

import ray
import torch
from ray import train, tune
from ray.train.torch import TorchTrainer
from ray.tune.logger import JsonLoggerCallback
from ray.tune.search import Searcher

from dpscale.config.schema import Config, DiffusionConfig
from dpscale.data.layout import RunLayout
from dpscale.data.on_ray import draining_nodes, room_for
from dpscale.data.types import InputError, Outcome
from dpscale.diffusion.weights import PoseVideoModel, load_model
from dpscale.finetune.checkpoint import settings_hash
from dpscale.finetune.deepspeed_engine import deepspeed_engines
from dpscale.finetune.performer import finetune_performer, is_finetuned, training_clip
from dpscale.finetune.placement import check_placeable
from dpscale.finetune.process import TRAIN_ENVIRONMENT, TUNE_ENVIRONMENT, prepare_process, set_defaults
from dpscale.finetune.queue import PerformerQueue, Waiting
from dpscale.finetune.step import Worker
from dpscale.tracking.tracker import Tracker

log = logging.getLogger(__name__)

_BASES: dict[tuple[str, str], PoseVideoModel] = {}
"""The base model of this process: with reused actors the next performer finds it loaded, with its own weights (trainable.unfrozen)."""

_ASK_EVERY_S, _ASK_EVERY_STEPS = 1.0, 5
"""How often a process that trains asks whether its node is about to go; a notice comes half a minute to two minutes ahead."""

# ---------------------------------------------------------------------------------- many performers


def finetune(config: Config, layout: RunLayout, performers: Sequence[str], tracker: Tracker) -> list[Outcome]:
    """Finetunes every performer whose result is not there yet; one Outcome each, in their order.

    A performer that fails for another reason than its input is tried `max_failures` times more, from its last checkpoint."""
    settings = {name: settings_hash(config, layout.shard(name, "main")) for name in performers}
    pending = [name for name in performers if not is_finetuned(layout, name, settings[name])]
    if pending:
        room_for(_processes(config, len(pending)), config.ray.grow_wait_s)
        check_placeable(_worker_resources(), config.finetune.num_workers, [node["Resources"] for node in ray.nodes() if node["Alive"]])
    outcomes = {name: Outcome("finetune", name, 0.0, skipped=True) for name in performers if name not in pending}
    if pending:
        outcomes |= {o.name: o for o in _run_trials(config, layout, pending, settings, tracker)}
    return [outcomes[name] for name in performers]


def _run_trials(config: Config, layout: RunLayout, performers: list[str], settings: dict[str, str], tracker: Tracker) -> list[Outcome]:
    set_defaults(TUNE_ENVIRONMENT)
    storage = layout.root / "ray"
    shutil.rmtree(storage / "finetune", ignore_errors=True)  # Tune's own record; what resumes is in layout.finetune
    trial = tune.with_parameters(_trial, config=config, layout=layout, settings=settings, tracker=tracker)
    tuner = tune.Tuner(
        tune.with_resources(trial, _trial_resources(config)),
        tune_config=tune.TuneConfig(search_alg=_Queue(config, performers), num_samples=len(performers), reuse_actors=True),
        run_config=tune.RunConfig(
            name="finetune",
            storage_path=str(storage),
            verbose=0,
            callbacks=[JsonLoggerCallback()],
            failure_config=tune.FailureConfig(max_failures=config.finetune.max_failures),
        ),
    )
    outcomes = [_outcome(result) for result in tuner.fit()]
    for outcome in outcomes:
        if not outcome.ok:
            tracker.finish(tracker.start("finetune", outcome.name, {}), "FAILED")
    return outcomes


class _Queue(Searcher):
    """PerformerQueue as Tune asks for it. Nothing is saved: what resumes is in layout.finetune."""

    def __init__(self, config: Config, performers: Sequence[str]) -> None:
        super().__init__()
        known = {p.name: Waiting(p.name, p.tenant, p.priority) for p in config.performers}
        waiting = [known.get(name, Waiting(name, "default", 0)) for name in performers]
        self.queue = PerformerQueue(waiting, config.finetune.max_concurrent, config.finetune.max_per_tenant)
        self.trials: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.queue.exhausted:
            return Searcher.FINISHED
        name = self.queue.next()
        if name is None:
            return None
        self.trials[trial_id] = name
        return {"performer": name}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.queue.done(self.trials[trial_id])

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...


def _trial_resources(config: Config) -> dict[str, float]:
    """A trial that waits for a TorchTrainer leaves its CPU and GPU to the workers."""
    return {"CPU": 0.01} if config.finetune.num_workers > 1 else _worker_resources()


def _processes(config: Config, num_performers: int) -> list[dict[str, float]]:
    """What training asks of Ray where every performer that may train does: on GPUs where they are used elsewhere."""
    gpus = 1.0 if config.scheduler.refresh_gpus or config.preprocess.encode_gpus else 0.0
    return [{"CPU": 1.0, "GPU": gpus}] * (min(num_performers, config.finetune.max_concurrent) * config.finetune.num_workers)


def _worker_resources() -> dict[str, float]:
    """What a process that trains takes: a whole CPU, and a GPU where there are any."""
    return {"CPU": 1, "GPU": 1} if _has_gpus() else {"CPU": 1}


def _has_gpus() -> bool:
    return ray.cluster_resources().get("GPU", 0) >= 1


def _outcome(result: tune.Result) -> Outcome:
    metrics = result.metrics or {}
    error = str(result.error).strip().splitlines()[-1] if result.error is not None else metrics.get("error") or None
    return Outcome("finetune", result.config["performer"], float(metrics.get("seconds", 0.0)), error=error)


def _trial(trial: dict[str, Any], config: Config, layout: RunLayout, settings: dict[str, str], tracker: Tracker) -> None:
    """One performer. Bad input is a result, not an exception: Tune retries exceptions."""
    name, started = trial["performer"], time.monotonic()
    run = _finetune_here if config.finetune.num_workers == 1 else _finetune_in_trainer
    error = ""
    try:
        run(config, layout, name, settings[name], tracker)
    except InputError as bad_input:
        error = str(bad_input)
    tune.report({"seconds": time.monotonic() - started, "error": error})


def _finetune_here(config: Config, layout: RunLayout, performer: str, settings: str, tracker: Tracker) -> None:
    prepare_process(config)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo" if device == "cpu" else "nccl", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        model = _base(config.diffusion, device)
        finetune_performer(config, layout, performer, model, deepspeed_engines(config, 1), tracker, settings, Worker(device=device), DrainNotice())
    except InputError:
        raise  # found before training: the base is as it was
    except Exception:
        _BASES.clear()  # a half-closed engine may have left hooks behind
        raise
    if config.finetune.offload in ("parameters", "nvme"):
        _BASES.clear()  # ZeRO-3 took the frozen parameters apart as well


# ------------------------------------------------------------------- one performer, several workers


def _finetune_in_trainer(config: Config, layout: RunLayout, performer: str, settings: str, tracker: Tracker) -> None:
    """Data parallel over clips in a TorchTrainer. Retries are Tune's: a second one resumes from our own state."""
    prepare_process(config)
    set_defaults(TRAIN_ENVIRONMENT)
    training_clip(layout, performer, _base(config.diffusion, "cpu"))  # bad input is found before workers start
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={"config": config, "layout": layout, "performer": performer, "settings": settings, "tracker": tracker},
        scaling_config=train.ScalingConfig(num_workers=config.finetune.num_workers, use_gpu=_has_gpus()),
        run_config=train.RunConfig(name=f"finetune-{performer}-{time.time_ns()}", storage_path=str(layout.root / "ray" / "trainers")),
    )
    try:
        trainer.fit()
    finally:
        shutil.rmtree(layout.root / "ray" / "trainers", ignore_errors=True)


def _train_worker(job: dict[str, Any]) -> None:
    config: Config = job["config"]
    prepare_process(config)
    context = train.get_context()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    worker = Worker(context.get_world_rank(), context.get_world_size(), device)
    model = _base(config.diffusion, device)
    engines = deepspeed_engines(config, worker.size)
    finetune_performer(config, job["layout"], job["performer"], model, engines, job["tracker"], job["settings"], worker, TrainNotice())


# ------------------------------------------------------------------- a machine that is about to go


class DrainNotice:
    """True once, after Ray was told that this process's node is going to be taken away. For a process that trains alone.

    The checkpoint made then is the last thing to be lost; training goes on until the node is gone, and Tune, which counts no
    preemption as a failure, starts the performer again elsewhere."""

    def __init__(self) -> None:
        self._node = ray.get_runtime_context().get_node_id()
        self._heard, self._asked = False, -math.inf

    def __call__(self, done: int) -> bool:
        if self._heard or time.monotonic() - self._asked < _ASK_EVERY_S:
            return False
        self._asked = time.monotonic()
        self._heard = self._node in draining_nodes()
        return self._heard


class TrainNotice:
    """The same for the workers of a TorchTrainer, which ask together and hear the same."""

    def __init__(self) -> None:
        self._heard = False

    def __call__(self, done: int) -> bool:
        if self._heard or done % _ASK_EVERY_STEPS != 0:
            return False
        self._heard = train.get_preemption_info() is not None
        return self._heard


# -------------------------------------------------------------------------------------- the base


def _base(diffusion: DiffusionConfig, device: str) -> PoseVideoModel:
    key = (diffusion.model_dump_json(), device)
    if key not in _BASES:
        _BASES.clear()
        model = load_model(diffusion)
        for module in (model.denoiser, model.autoencoder):
            module.to(device)
        _BASES[key] = model
    return _BASES[key]
