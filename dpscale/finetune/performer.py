"""Everything that one performer's finetuning does, in one process (or in each of several data-parallel ones)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dpscale.config.schema import Config, FinetuneConfig
from dpscale.data.checkpoint import MARKER, marker_of, write_json
from dpscale.data.layout import RunLayout
from dpscale.data.mp4 import write_mp4
from dpscale.data.seeds import derive
from dpscale.data.shards import ShardError, read_clip
from dpscale.data.types import Clip, InputError
from dpscale.diffusion.delta import save_delta, saved_name
from dpscale.diffusion.weights import PoseVideoModel
from dpscale.finetune.average import AveragedEngine, averaged_parameters, start_averages
from dpscale.finetune.checkpoint import TrainingState, load_state, remove_states, save_state
from dpscale.finetune.decoder import DecoderStep, trainable_decoder
from dpscale.finetune.loop import Engine, every, lr_factor, train
from dpscale.finetune.lora import adapted
from dpscale.finetune.memory import recomputed
from dpscale.finetune.step import ALONE, DenoiserStep, Worker, check_clip, num_steps
from dpscale.finetune.trainable import TrainablePart, install, trainable_denoiser, unfrozen
from dpscale.finetune.validation import HeldOutVideo
from dpscale.tracking.tracker import Tracker

LOG_EVERY = 10
"""Steps whose mean loss is one point of the tracker's curve."""

MakeEngine = Callable[[TrainablePart, float, Mapping[str, Tensor] | None], Engine]
"""(part, learning rate, earlier Engine.state() or None) -> engine."""


@dataclass(frozen=True)
class Phase:
    """One training of one part of the model; its artefact is `name`.safetensors."""

    name: str
    part: TrainablePart
    step: Callable[[int], Tensor]
    num_steps: int
    lr: float
    validate: Callable[[int], object]
    """Called with the number of updates after each of them: may look at the model, and changes nothing."""


def is_finetuned(layout: RunLayout, performer: str, settings: str) -> bool:
    """Whether a finished result of the same settings (checkpoint.settings_hash) is there."""
    marker = marker_of(layout.finetune(performer))
    return marker is not None and marker["settings"] == settings


def training_clip(layout: RunLayout, performer: str, model: PoseVideoModel) -> Clip:
    """The performer's own clip. Raises InputError where it is not there or does not fit the model."""
    shard = layout.shard(performer, "main")
    try:
        clip = read_clip(shard)
    except ShardError as error:
        raise InputError(str(error)) from error
    check_clip(clip, model, str(shard))
    return clip


def finetune_performer(
    config: Config,
    layout: RunLayout,
    performer: str,
    model: PoseVideoModel,
    make_engine: MakeEngine,
    tracker: Tracker,
    settings: str,
    worker: Worker = ALONE,
    leaving: Callable[[int], bool] = lambda done: False,
) -> None:
    """Finetunes denoiser, then decoder, resuming where an earlier run stopped; leaves `model` as it was.

    `leaving` is asked after each update, with their number, by all workers alike; true makes a checkpoint at once.
    Writes denoiser.safetensors, decoder.safetensors, card.json and the completion marker to layout.finetune(performer)."""
    clip = training_clip(layout, performer, model)
    folder = layout.finetune(performer)
    key = tracker.start("finetune", performer, config.finetune.model_dump(mode="json")) if worker.rank == 0 else ""
    with adapted(model.denoiser, config.finetune.lora_rank, derive(config.run.seed, "lora", performer)):
        states = {
            phase.name: _run_phase(phase, folder, settings, config.finetune, make_engine, worker, leaving, _curve(tracker, key, phase, worker))
            for phase in _phases(config, clip, model, worker, _validation(config, clip, model, folder, tracker, key, worker))
        }
    if worker.rank == 0:
        cards = {name: card | {"bytes": _delta(folder, name).stat().st_size} for name, card in states.items()}
        about = {"performer": performer, "settings": settings, "num_workers": worker.size, "lora_rank": config.finetune.lora_rank}
        write_json(folder / "card.json", about | {"phases": cards})
        write_json(folder / MARKER, {"settings": settings})
        remove_states(folder)
        tracker.finish(key, "FINISHED")


def _phases(config: Config, clip: Clip, model: PoseVideoModel, worker: Worker, validate: Callable[[int], object]) -> list[Phase]:
    finetune = config.finetune
    denoiser = trainable_denoiser(model.denoiser, finetune.trainable)
    denoiser_step = DenoiserStep(
        model, clip, config.diffusion.pose_kinds, finetune.clip_frames, finetune.condition_dropout, finetune.body_weight, finetune.loss,
        config.run.seed, worker, finetune.precision, int(finetune.cache_gib * 2**30),
    )  # fmt: skip
    decoder_step = DecoderStep(model, clip, finetune.decoder.batch_size, config.run.seed, worker, finetune.precision)
    return [
        Phase("denoiser", denoiser, denoiser_step, num_steps(finetune, clip.num_train, worker.size), finetune.lr, validate),
        Phase("decoder", trainable_decoder(model), decoder_step, finetune.decoder.steps, finetune.decoder.lr, _nothing),
    ]


def _run_phase(
    phase: Phase,
    folder: Path,
    settings: str,
    finetune: FinetuneConfig,
    make_engine: MakeEngine,
    worker: Worker,
    leaving: Callable[[int], bool],
    curve: Callable[[int, list[float]], None],
) -> dict[str, Any]:
    """Trains one phase from its newest state to its artefact; returns its part of the card."""
    state = load_state(folder, phase.name, settings) or TrainingState(0, None, (), 0.0)
    losses = list(state.losses)
    entered = time.monotonic()
    started = entered - state.seconds
    with unfrozen(phase.part), recomputed(phase.part.module, finetune.gradient_checkpointing):
        with closing(_engine(phase, finetune.ema_decay, make_engine, state.tensors)) as engine:

            def save(done: int) -> None:
                tensors = engine.state()
                if worker.rank == 0:
                    save_state(folder, phase.name, settings, TrainingState(done, tensors, tuple(losses), time.monotonic() - started))

            def log(done: int, loss: float) -> None:
                losses.append(loss)
                curve(done, losses)

            checkpoint = every(finetune.checkpoint_every, phase.num_steps, save)

            def after(done: int) -> None:
                (save if leaving(done) else checkpoint)(done)
                phase.validate(done)

            start_s = round(time.monotonic() - entered, 3)
            train(
                engine, phase.step, phase.num_steps, start_step=state.step, accumulate=finetune.clips_per_worker, save=after, log=log,
                lr_schedule=lambda number: phase.lr * lr_factor(finetune.lr_schedule, number, phase.num_steps),
            )  # fmt: skip
            tensors = engine.state()
        if worker.rank == 0:
            install(phase.part, averaged_parameters(tensors))
            save_delta(_delta(folder, phase.name), phase.part.module, list(phase.part.parameters))
    seconds = round(time.monotonic() - started, 3)
    trained = [saved_name(name) for name in phase.part.parameters]
    return {"steps": phase.num_steps, "lr": phase.lr, "seconds": seconds, "start_s": start_s, "losses": losses, "trained": trained}


def _delta(folder: Path, phase: str) -> Path:
    return folder / f"{phase}.safetensors"


def _engine(phase: Phase, ema_decay: float | None, make_engine: MakeEngine, state: Mapping[str, Tensor] | None) -> Engine:
    if ema_decay is None:
        return make_engine(phase.part, phase.lr, state)
    averages = start_averages(phase.part.parameters, state)
    return AveragedEngine(make_engine(phase.part, phase.lr, state), phase.part.parameters, averages, ema_decay, state)


def _nothing(done: int) -> None:
    pass


def _validation(
    config: Config, clip: Clip, model: PoseVideoModel, folder: Path, tracker: Tracker, key: str, worker: Worker
) -> Callable[[int], object]:
    """Once in `validate_every` steps of the denoiser: validation-STEP.mp4 in the performer's folder, handed to the tracker.

    Every worker samples, since ZeRO-3 needs all of them to put a layer together; the first one writes. A clip without held-out frames has none."""
    every_steps = config.finetune.validate_every
    if every_steps is None or clip.num_train == len(clip):
        return _nothing
    sample = HeldOutVideo(model, clip, config.diffusion, config.run.seed, worker.device)

    def validate(done: int) -> None:
        if done % every_steps != 0:
            return
        frames = sample()
        if worker.rank == 0:
            path = folder / f"validation-{done:08d}.mp4"
            write_mp4(path, frames, clip.fps)
            tracker.artifact(key, path, "validation")

    return validate


def _curve(tracker: Tracker, key: str, phase: Phase, worker: Worker) -> Callable[[int, list[float]], None]:
    """Sends the mean loss of the last LOG_EVERY steps to the tracker, once in LOG_EVERY steps."""

    def send(done: int, losses: list[float]) -> None:
        if worker.rank == 0 and (done % LOG_EVERY == 0 or done == phase.num_steps):
            recent = losses[-((done - 1) % LOG_EVERY + 1) :]
            tracker.metrics(key, {f"{phase.name}_loss": statistics.fmean(recent)}, done)

    return send
