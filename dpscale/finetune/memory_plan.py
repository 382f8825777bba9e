"""What finetuning needs at every level of offload, in bytes a worker, and the fastest level that fits a GPU.

The terms are those of DeepSpeed 0.19.8 in fp32 (runtime/zero/stage_1_and_2.py, stage3.py) and of finetune.trainable.unfrozen, which keeps a
copy of what trains, so that the resident base can be restored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dpscale.config.load import check, merged, parse_override
from dpscale.config.schema import Config
from dpscale.data.types import InputError
from dpscale.finetune.training_phases import TracedPhase, TracedTraining, traced_training
from dpscale.finetune.zero_offload import OPTIMIZER_BUFFERS, PARAMETER_BUFFERS

GIB = 2**30
LEVELS = ("none", "optimizer", "parameters", "nvme")
"""finetune.offload, the fastest first."""
_CHECKPOINTING, _BF16 = "finetune.gradient_checkpointing=true", "finetune.precision=bf16"
_REMEDIES = (
    (_CHECKPOINTING,),
    (_BF16,),
    (_BF16, _CHECKPOINTING),
    (_BF16, _CHECKPOINTING, "finetune.decoder.batch_size=1"),
    (_BF16, _CHECKPOINTING, "finetune.decoder.batch_size=1", "finetune.clip_frames=4"),
)
"""Settings that make a step smaller: first what changes no result. bf16 is counted by the CPU's rules, which is less than CUDA takes."""
_LIVE = 4 * (1_000_000_000 // 2 + 50_000_000)
"""Weights that ZeRO-3 keeps on the device: those used again within stage3_max_reuse_distance, which counts forward and backward, and the
prefetch bucket."""
_OFFLOADED = {"optimizer": 5, "parameters": 6, "nvme": 1}
"""Copies of what trains in host memory: master weights, gradients, moments and what updates them, parameters; with nvme gradients alone."""
_RESERVED = 1 * GIB
"""Of a GPU: context, libraries' workspaces (ours)."""
_FRAGMENTS = 1.05
"""What the caching allocator takes over what is asked of it (ours)."""
_PROCESS = 1 * GIB
"""Of host memory: Python, torch, Ray and DeepSpeed in a worker, measured at 0.9 GiB."""


@dataclass(frozen=True)
class Need:
    """Of one phase at one level, in bytes per worker."""

    weights: int
    """On the device, of everything that lies there."""
    states: int
    """On the device: gradients, AdamW's moments, master weights, buckets, the copy for the next performer."""
    activations: int
    """Kept for backward."""
    peak: int
    """Most at once on the device."""
    host: int
    """In host memory, beside what the process itself takes."""


@dataclass(frozen=True)
class Level:
    """The larger of both phases, with what a process takes for itself."""

    offload: str
    phases: dict[str, Need]
    gpu: int
    """Per GPU, with its reserve."""
    host: int
    """Per node, with all its workers."""


def gpu_sizes(gib: Sequence[float] | None) -> list[float]:
    """Sizes to plan for, in GiB, rising; none given: usual ones. Raises InputError."""
    wrong = [size for size in gib or () if not 0 < size < float("inf")]
    if wrong:
        raise InputError(f"--gpu-gib {wrong[0]:g}: give the memory of a GPU in GiB, a number above 0")
    return sorted(gib or (24.0, 40.0, 80.0))


def levels(config: Config, traced: TracedTraining) -> list[Level]:
    """Every level of LEVELS; all workers on one node, a GPU each."""
    return [_level(offload, traced, config.finetune.num_workers, config.finetune.ema_decay is not None) for offload in LEVELS]


def cheapest(options: Sequence[Level], gpu: float) -> Level | None:
    """The fastest level whose peak fits into `gpu` bytes."""
    return next((level for level in options if level.gpu <= gpu), None)


def remedy(config: Config, gpu: float) -> tuple[tuple[str, ...], Level] | None:
    """The first of _REMEDIES with which some level fits into `gpu` bytes, and that level. Traces anew for each."""
    for options in _REMEDIES:
        changed = config
        for option in options:
            changed = check(merged(changed.model_dump(), parse_override(option)))
        level = cheapest(levels(changed, traced_training(changed)), gpu)
        if level is not None:
            return options, level
    return None


def _level(offload: str, traced: TracedTraining, workers: int, averaged: bool) -> Level:
    pairs = ((traced.denoiser, traced.decoder), (traced.decoder, traced.denoiser))
    phases = {phase.name: _need(offload, phase, other, workers, averaged) for phase, other in pairs}
    peak, host = max(need.peak for need in phases.values()), max(need.host for need in phases.values())
    loaded = traced.denoiser.weights + traced.decoder.weights
    host = traced.image_encoder + max(loaded, host) + _PROCESS
    return Level(offload, phases, int(peak * _FRAGMENTS) + _RESERVED, workers * host)


def _need(offload: str, phase: TracedPhase, other: TracedPhase, workers: int, averaged: bool) -> Need:
    copies = phase.trained * (2 if averaged else 1)
    resident = phase.weights + _resident(offload, other)
    checkpoint = 3 * phase.trained
    if offload == "none":
        return _on_device(phase, resident, copies, checkpoint, workers)
    buckets = 2 * phase.largest  # DeepSpeed's reduce bucket is as large as the largest tensor, and so is what is flattened into it
    weights = resident if offload == "optimizer" else resident - phase.weights + min(phase.weights, _live(offload, phase))
    offloaded = _OFFLOADED[offload] * phase.trained // workers
    if offload == "parameters":
        offloaded += (phase.weights - phase.trained + other.weights - other.trained) // workers
    if offload == "nvme":
        offloaded += (OPTIMIZER_BUFFERS + PARAMETER_BUFFERS) * phase.largest
    peak = weights + copies + buckets + phase.step.peak_without_gradients
    return Need(weights, copies + buckets, phase.step.activations, peak, offloaded + checkpoint)


def _live(offload: str, phase: TracedPhase) -> int:
    return _LIVE if offload == "parameters" else PARAMETER_BUFFERS * phase.largest


def _resident(offload: str, other: TracedPhase) -> int:
    """Weights of the part that does not train now. Once ZeRO-3 has trained the denoiser, only its trained part is on the device again."""
    return other.trained if offload in ("parameters", "nvme") and other.name == "denoiser" else other.weights


def _on_device(phase: TracedPhase, resident: int, copies: int, checkpoint: int, workers: int) -> Need:
    """offload = none. One worker: AdamW on the parameters. More: ZeRO-1, master weights and moments divided among them."""
    trained, share = phase.trained, phase.trained // workers
    if workers == 1:
        states = copies + 2 * trained
        # AdamW's update takes a root of the second moment for all tensors at once, DeepSpeed's reduction a flat copy of the gradients.
        update = 2 * trained
    else:
        states = copies + 3 * share + phase.largest
        update = trained + 2 * share
    peak = resident + states + max(phase.step.peak, update)
    return Need(resident, states + trained, phase.step.activations, peak, checkpoint)
