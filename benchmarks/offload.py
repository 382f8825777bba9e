"""How much memory does each level of finetune.offload take, and what does a step cost? 302 M trained parameters, 20 steps a level.

72 residual layers of 2048 x 2048 in fp32, batch 4, so that activations are small beside the states; on one process and its CPU, where
`optimizer` and `parameters` move states within the same memory, and only `nvme` takes them out of it. A fresh process a level; peak RSS
is the most that it ever held, page cache not among it. For `parameters` and `nvme` the model is built layer by layer under
deepspeed.zero.Init, so that it never lies whole in memory. `--full`: 60 steps."""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import time
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import arguments, finish
from dpscale.config.schema import FinetuneConfig
from dpscale.data.heap import keep_heap_small
from dpscale.finetune.deepspeed_engine import DeepSpeedEngine, cpu_adam_loads, nvme_folder, require_async_io
from dpscale.finetune.loop import train
from dpscale.finetune.trainable import TrainablePart
from dpscale.finetune.zero_offload import deepspeed_settings

_LEVELS = ("none", "optimizer", "parameters", "nvme")
_LAYERS, _WIDTH, _BATCH, _LR = 72, 2048, 4, 1e-4
_DISK = Path("runs/benchmarks/nvme")


def main() -> None:
    """One level after the other, each in its own process."""
    given = arguments(__doc__ or "")
    rows = [_in_fresh_process(level, 60 if given.full else 20) for level in _LEVELS]
    losses = {row["offload"]: row.pop("losses") for row in rows}
    finish("offload", given.json, {
        "nvme_over_none": rows[-1]["peak_rss_gib"] / rows[0]["peak_rss_gib"],
        "peak_rss_gib": {row["offload"]: row["peak_rss_gib"] for row in rows},
        "step_s": {row["offload"]: row["step_s"] for row in rows},
        "losses_equal_within": max(abs(a - b) for found in losses.values() for a, b in zip(found, losses["none"], strict=True)),
        "losses": losses, "parameters": rows[0]["parameters"],
    }, rows)  # fmt: skip


def _in_fresh_process(level: str, num_steps: int) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (level, num_steps))


def _measure(level: str, num_steps: int) -> dict[str, Any]:
    """Trains at one level in this process: its peak RSS, the median step without the first, losses."""
    keep_heap_small()  # as workers do with nvme; here at every level, for it alone shall differ
    os.environ.update(LOCAL_RANK="0", DS_ACCELERATOR="cpu")
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    started = time.monotonic()
    network, engine = _engine(FinetuneConfig(offload=level, nvme_path=_DISK))  # pyright: ignore[reportArgumentType]
    built, losses, times = time.monotonic(), [], [time.monotonic()]

    def log(_: int, loss: float) -> None:
        losses.append(loss)
        times.append(time.monotonic())

    train(engine, network.loss, num_steps, log=log)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    engine.close()
    step = statistics.median(b - a for a, b in pairwise(times[1:]))
    return {"offload": level, "parameters": _LAYERS * (_WIDTH + 1) * _WIDTH, "peak_rss_gib": peak, "step_s": step,
            "build_s": built - started, "last_loss": losses[-1], "losses": losses}  # fmt: skip


def _engine(finetune: FinetuneConfig) -> tuple[_Residual, DeepSpeedEngine]:
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if finetune.offload == "nvme":
        require_async_io()
    disk = nvme_folder(finetune)
    settings = deepspeed_settings(
        finetune, 1, lr=_LR, cpu_adam=finetune.offload != "none" and cpu_adam_loads(), largest_parameter=_WIDTH**2,
        nvme_folder=Path(disk.name) if disk else None,
    )  # fmt: skip
    partitioned = finetune.offload in ("parameters", "nvme")
    torch.manual_seed(0)
    with deepspeed.zero.Init(config_dict_or_path=settings) if partitioned else nullcontext():
        network = _Residual()
    part = TrainablePart(network, dict(network.named_parameters()))
    return network, DeepSpeedEngine(part, settings, finetune.weight_decay, None, disk)


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(_WIDTH, _WIDTH) for _ in range(_LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + torch.nn.functional.silu(layer(x)) / len(self.layers) ** 0.5
        return x

    def loss(self, step: int) -> Tensor:
        x, target = torch.randn(2, _BATCH, _WIDTH, generator=torch.Generator().manual_seed(step % 4))
        return (self(x) - target).square().mean()


if __name__ == "__main__":
    main()
