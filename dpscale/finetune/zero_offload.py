"""Settings -> DeepSpeed's dict. Pure: what the model and the machine are like are arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dpscale.config.schema import FinetuneConfig

ZERO_STAGE = {"none": 0, "optimizer": 2, "parameters": 3, "nvme": 3}
"""ZeRO's level by what is offloaded; with more than one worker `none` partitions the optimiser (1)."""
AIO = {"block_size": 2**20, "queue_depth": 8, "intra_op_parallelism": 1, "single_submit": False, "overlap_events": True}
"""How libaio reads and writes. DeepSpeed leaves in memory what is smaller than one block (2^20 bytes is also its own lower limit)."""
SUB_GROUP = 2**18
"""Elements that the optimiser updates at once, at least: the smallest fp32 tensor that goes to the disk. So each larger one is a sub-group
of its own when parameters come largest first, and gradients start where O_DIRECT can read: behind a small tensor in the same sub-group
DeepSpeed 0.19.8 would read to an unaligned address, which fails without an error."""
OPTIMIZER_BUFFERS = 4
"""One sub-group's parameters, gradients and both moments."""
PARAMETER_BUFFERS = 5
"""Parameters of one layer, and of those whose input takes no gradient: DeepSpeed lets go of these at the end of backward only."""


def deepspeed_settings(
    finetune: FinetuneConfig,
    world_size: int,
    *,
    lr: float,
    cpu_adam: bool,
    largest_parameter: int,
    pin_memory: bool = False,
    nvme_folder: Path | None = None,
) -> dict[str, Any]:
    """DeepSpeed's settings for `clips_per_worker` clips per worker and step, one at a time, in fp32.

    `cpu_adam`: DeepSpeed's CPUAdam can be loaded here; without it torch's AdamW updates offloaded states (slower, same formula).
    `largest_parameter`: elements of the model's largest tensor; buffers are as small as it allows. `pin_memory`: page-locked host memory,
    for a GPU. `nvme_folder`: this engine's own, for offload = nvme."""
    offloads = finetune.offload != "none"
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": finetune.clips_per_worker,
        "train_batch_size": world_size * finetune.clips_per_worker,
        "steps_per_print": 2**31 - 1,
        "optimizer": {"type": "AdamW", "params": {"lr": lr, "torch_adam": not (offloads and cpu_adam), "weight_decay": finetune.weight_decay}},
        "gradient_clipping": 0.0,  # DeepSpeed would clip to norm 1 unasked
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": _zero(finetune, world_size, largest_parameter, pin_memory, nvme_folder),
        "aio": AIO,
    }


def _zero(finetune: FinetuneConfig, world_size: int, largest_parameter: int, pin_memory: bool, nvme_folder: Path | None) -> dict[str, Any]:
    stage = 1 if finetune.offload == "none" and world_size > 1 else ZERO_STAGE[finetune.offload]
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": False, "contiguous_gradients": True}
    zero |= {"reduce_bucket_size": largest_parameter, "allgather_bucket_size": largest_parameter}
    if finetune.offload in ("optimizer", "parameters"):
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": pin_memory}
    if finetune.offload == "parameters":
        zero["offload_param"] = {"device": "cpu", "pin_memory": pin_memory}
    if finetune.offload == "nvme":
        zero |= _one_layer_at_a_time(largest_parameter)
        disk = {"device": "nvme", "nvme_path": str(nvme_folder), "pin_memory": pin_memory}
        zero["offload_optimizer"] = disk | {"buffer_count": OPTIMIZER_BUFFERS}
        zero["offload_param"] = disk | {"buffer_count": PARAMETER_BUFFERS, "buffer_size": largest_parameter, "max_in_cpu": 0}
    return zero


def _one_layer_at_a_time(largest_parameter: int) -> dict[str, int]:
    """ZeRO-3 keeps no more of the model together than the layer that computes, and updates about one tensor at a time."""
    return {
        "sub_group_size": SUB_GROUP,
        "stage3_max_live_parameters": largest_parameter,
        "stage3_max_reuse_distance": 0,
        "stage3_prefetch_bucket_size": 0,
        "stage3_param_persistence_threshold": 0,
    }
