"""A real training step of the packaged model in a process of its own, which prints the most memory that it took, in bytes.

    python -m tests.measured_step torch|deepspeed denoiser|decoder [KEY=VALUE]...

The kernel measures it: the peak of the resident set, from before the model is there until after the second update."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import psutil
import torch
from torch import Tensor

from dpscale.config.load import check, merged, parse_override
from dpscale.config.schema import Config
from dpscale.diffusion.weights import load_model
from dpscale.finetune.deepspeed_engine import deepspeed_engines
from dpscale.finetune.loop import Engine, TorchEngine, train
from dpscale.finetune.memory import recomputed
from dpscale.finetune.performer import MakeEngine
from dpscale.finetune.process import prepare_process
from dpscale.finetune.trainable import TrainablePart, trainable_denoiser, unfrozen
from dpscale.finetune.training_phases import decoder_loss, decoder_part, denoiser_loss


def settings(overrides: list[str]) -> Config:
    raw = {"diffusion": {"preset": "tiny"}, "preprocess": {"size": 128}, "finetune": {"trainable": "all"}}
    for override in overrides:
        raw = merged(raw, parse_override(override))
    return check(raw)


def peak_of_steps(engine_name: str, phase: str, overrides: list[str]) -> int:
    make_engine = _make_engine(engine_name, settings(overrides))
    # Libraries load and kernels are compiled on first use: that is no part of a step.
    _train(settings([*overrides, "finetune.clip_frames=1", "finetune.decoder.batch_size=1"]), phase, _torch_engine)
    gc.collect()
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    _train(settings(overrides), phase, make_engine)
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 - before


def _train(config: Config, phase: str, make_engine: MakeEngine) -> None:
    """Two steps: AdamW's moments are there from the second one on."""
    model = load_model(config.diffusion)
    is_denoiser = phase == "denoiser"
    part = trainable_denoiser(model.denoiser, config.finetune.trainable) if is_denoiser else decoder_part(model)
    loss = denoiser_loss if is_denoiser else decoder_loss
    with unfrozen(part), recomputed(part.module, config.finetune.gradient_checkpointing), closing(make_engine(part, 1e-5, None)) as engine:
        train(engine, lambda step: loss(config, model), 2)


def _torch_engine(part: TrainablePart, lr: float, state: Mapping[str, Tensor] | None) -> Engine:
    return TorchEngine(part.parameters, part.groups(0.01), lr, state)


def _make_engine(name: str, config: Config) -> MakeEngine:
    if name == "torch":
        return _torch_engine
    prepare_process(config)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    return deepspeed_engines(config, 1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(peak_of_steps(sys.argv[1], sys.argv[2], sys.argv[3:]))
