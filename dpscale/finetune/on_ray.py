"""Finetuning of many performers: Ray Tune outside, a DeepSpeed engine inside, a Ray Train TorchTrainer for a performer with several workers."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from ray import train, tune
from ray.train.torch import TorchTrainer
from ray.tune.logger import JsonLoggerCallback
from ray.tune.search import Searcher
from torch import Tensor
from torch.utils.cpp_extension import get_default_build_root

from dpscale.config.schema import Config, DiffusionConfig
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError, Outcome
from dpscale.diffusion.weights import PoseVideoModel, load_model
from dpscale.finetune.checkpoint import settings_hash
from dpscale.finetune.loop import MOMENTS, Engine, engine_state, load_moments, load_parameters
from dpscale.finetune.performer import MakeEngine, finetune_performer, is_finetuned, training_clip
from dpscale.finetune.placement import check_placeable
from dpscale.finetune.process import TRAIN_ENVIRONMENT, TUNE_ENVIRONMENT, prepare_process, set_defaults
from dpscale.finetune.queue import PerformerQueue, Waiting
from dpscale.finetune.step import Worker
from dpscale.finetune.trainable import TrainablePart
from dpscale.finetune.zero_offload import deepspeed_settings
from dpscale.tracking.tracker import Tracker

log = logging.getLogger(__name__)

_BASES: dict[tuple[str, str], PoseVideoModel] = {}
"""The base model of this process: with reused actors the next performer finds it loaded, with its own weights (trainable.unfrozen)."""

# ---------------------------------------------------------------------------------- many performers


def finetune(config: Config, layout: RunLayout, performers: Sequence[str], tracker: Tracker) -> list[Outcome]:
    """Finetunes every performer whose result is not there yet; one Outcome each, in their order.

    A performer that fails for another reason than its input is tried `max_failures` times more, from its last checkpoint."""
    settings = {name: settings_hash(config, layout.shard(name, "main")) for name in performers}
    pending = [name for name in performers if not is_finetuned(layout, name, settings[name])]
    if pending:
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
        finetune_performer(config, layout, performer, model, deepspeed_engines(config, 1), tracker, settings, Worker(device=device))
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
    finetune_performer(config, job["layout"], job["performer"], model, engines, job["tracker"], job["settings"], worker)


# ---------------------------------------------------------------------------- process and DeepSpeed


def _base(diffusion: DiffusionConfig, device: str) -> PoseVideoModel:
    key = (diffusion.model_dump_json(), device)
    if key not in _BASES:
        _BASES.clear()
        model = load_model(diffusion)
        for module in (model.denoiser, model.autoencoder):
            module.to(device)
        _BASES[key] = model
    return _BASES[key]


def cpu_adam_loads() -> bool:
    """Whether DeepSpeed's CPUAdam was compiled at set-up and loads; a worker never compiles. Without it torch's AdamW does the same, more slowly."""
    from deepspeed.ops.op_builder import CPUAdamBuilder

    extensions = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    if not any(extensions.rglob("cpu_adam.so")):
        log.warning("DeepSpeed's CPUAdam is not compiled in %s (`make setup` does it); torch's AdamW takes its place", extensions)
        return False
    try:
        CPUAdamBuilder().load(verbose=False)
    except (RuntimeError, OSError, ImportError) as error:
        log.warning("DeepSpeed's CPUAdam does not load (%s); torch's AdamW takes its place", str(error).splitlines()[0])
        return False
    return True


def deepspeed_engines(config: Config, world_size: int) -> MakeEngine:
    """A factory of DeepSpeed engines for the processes of the current torch.distributed group."""
    import deepspeed

    # Built for collectives that training never calls; without a compiler its build would end the run.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    finetune_settings = config.finetune
    cpu_adam = finetune_settings.offload != "none" and cpu_adam_loads()

    def make(part: TrainablePart, lr: float, state: Mapping[str, Tensor] | None) -> Engine:
        settings = deepspeed_settings(finetune_settings, world_size, lr=lr, cpu_adam=cpu_adam)
        return DeepSpeedEngine(part, settings, finetune_settings.weight_decay, state)

    return make


class DeepSpeedEngine:
    """Implements loop.Engine with DeepSpeed, at every level of ZeRO."""

    def __init__(self, part: TrainablePart, settings: dict[str, Any], weight_decay: float, state: Mapping[str, Tensor] | None) -> None:
        import deepspeed

        self.parameters = part.parameters
        self.stage: int = settings["zero_optimization"]["stage"]
        if state is not None:
            load_parameters(part.parameters, state)  # before ZeRO copies them
        groups = part.groups(weight_decay)
        self.engine, *_ = deepspeed.initialize(model=part.module, model_parameters=groups, config=settings, dist_init_required=False)
        self._load_moments(state)

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss)

    def step(self) -> None:
        self.engine.step()

    def set_lr(self, lr: float) -> None:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr

    def close(self) -> None:
        self.engine.destroy()

    def state(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        inner = self.engine.basic_optimizer
        if self.stage == 0:
            return engine_state(self.parameters, inner)
        state = {"step": torch.tensor(max(int(s["step"]) for s in inner.state.values()))}
        for name, parameter in self.parameters.items():
            state[f"parameter.{name}"] = _on_cpu(safe_get_full_fp32_param(parameter))
            for moment in MOMENTS:
                state[f"{moment}.{name}"] = _on_cpu(safe_get_full_optimizer_state(parameter, moment))
        return state

    def _load_moments(self, state: Mapping[str, Tensor] | None) -> None:
        """Moments exist from the start, zero at first: ZeRO links a parameter to its moments once, after the update of the first group."""
        from deepspeed.ops.adam import DeepSpeedCPUAdam
        from deepspeed.utils import safe_set_full_optimizer_state

        inner = self.engine.basic_optimizer
        if self.stage == 0:
            if state is not None:
                load_moments(self.parameters, inner, state)
            return
        zero = self.engine.optimizer
        step = 0 if state is None else int(state["step"])
        for flat in zero.fp32_partitioned_groups_flat if self.stage == 3 else zero.single_partition_of_fp32_groups:
            moments = {moment: torch.zeros_like(flat) for moment in MOMENTS}
            inner.state[flat] = {"step": step if isinstance(inner, DeepSpeedCPUAdam) else torch.tensor(float(step)), **moments}
        if self.stage < 3:
            zero._lazy_init_hp_params_optimizer_state()
        for name, parameter in self.parameters.items() if state is not None else ():
            for moment in MOMENTS:
                safe_set_full_optimizer_state(parameter, state[f"{moment}.{name}"].to(parameter.device), moment)


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
