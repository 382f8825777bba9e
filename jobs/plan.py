"""`dpscale plan CONFIG`: what finetuning needs at every level of offload, and which level fits which GPU. Needs neither a GPU nor weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dpscale.config.schema import Config
from dpscale.data.checkpoint import write_json
from dpscale.finetune.deepspeed_engine import estimated_states
from dpscale.finetune.memory_plan import GIB, Level, cheapest, gpu_sizes, levels, remedy
from dpscale.finetune.training_phases import TracedTraining, traced_training


def run(config: Config, gpus_gib: Sequence[float] | None, json_file: Path | None) -> int:
    """Prints a row a level and a sentence a GPU size; `json_file` gets the same in bytes."""
    sizes = gpu_sizes(gpus_gib)
    traced = traced_training(config)
    rows = levels(config, traced)
    Console(width=None if sys.stdout.isatty() else 160).print(_table(config, traced, rows, sizes))
    advice = {f"{size:g}": _advice(config, rows, size) for size in sizes}
    print(*advice.values(), sep="\n")
    if traced.assumed:
        print(f"sizes as published, since no config.json of theirs is on this machine: {', '.join(traced.assumed)}")
    if json_file is not None:
        write_json(json_file, {"levels": [asdict(row) for row in rows], "traced": asdict(traced), "advice": advice})
    return 0


def _table(config: Config, traced: TracedTraining, rows: Sequence[Level], sizes: Sequence[float]) -> Table:
    finetune, phase = config.finetune, traced.denoiser
    columns = ("offload", "weights", "states", "activations", "denoiser", "decoder", "GPU", "host", "ZeRO GPU", "ZeRO host")
    parameters = f"{phase.weights / 4e9:.3f} G parameters, {phase.trained / 4e9:.3f} G trained"
    caption = (
        f"GiB. {config.diffusion.preset}: {parameters}; {finetune.clip_frames} frames of {config.preprocess.size} px, {finetune.precision}, "
        f"gradient_checkpointing = {str(finetune.gradient_checkpointing).lower()}, {finetune.num_workers} worker(s) on a node. "
        "ZeRO: DeepSpeed's own estimate of the states in 16-bit training."
    )
    table = Table(*columns, *(f"fits {size:g}" for size in sizes), caption=caption)
    for row in rows:
        most, zero = max(row.phases.values(), key=lambda need: need.peak), estimated_states(row.offload, phase, finetune.num_workers)
        parts = (most.weights, most.states, most.activations, *(need.peak for need in row.phases.values()), row.gpu, row.host, *zero)
        fits = ("yes" if row.gpu <= size * GIB else "[red]no[/red]" for size in sizes)
        table.add_row(row.offload, *(f"{size / GIB:.1f}" for size in parts), *fits)
    return table


def _advice(config: Config, rows: Sequence[Level], size: float) -> str:
    if (level := cheapest(rows, size * GIB)) is not None:
        return f"{size:g} GiB: finetune.offload = {level.offload} fits, with {level.gpu / GIB:.1f} GiB"
    if (found := remedy(config, size * GIB)) is None:
        return f"{size:g} GiB: no level fits, nor with bf16, gradient_checkpointing and fewer frames: take a larger GPU or a smaller preprocess.size"
    options, level = found
    sets = " ".join(f"--set {option}" for option in (*options, f"finetune.offload={level.offload}"))
    return f"{size:g} GiB: no level fits; with {sets} it takes {level.gpu / GIB:.1f} GiB"
