"""Settings -> DeepSpeed's dict. Pure: whether an operation can be loaded is an argument."""

from __future__ import annotations

from typing import Any

from dpscale.config.schema import FinetuneConfig
from dpscale.data.types import InputError

ZERO_STAGE = {"none": 0, "optimizer": 2, "parameters": 3, "nvme": 3}
"""ZeRO's level by what is offloaded; with more than one worker `none` partitions the optimiser (1)."""


def deepspeed_settings(finetune: FinetuneConfig, world_size: int, *, lr: float, cpu_adam: bool) -> dict[str, Any]:
    """DeepSpeed's settings for `clips_per_worker` clips per worker and step, one at a time, in fp32.

    `cpu_adam`: DeepSpeed's CPUAdam can be loaded here; without it torch's AdamW updates offloaded states (slower, same formula).
    Raises InputError when offload = nvme has no nvme_path."""
    offloads = finetune.offload != "none"
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": finetune.clips_per_worker,
        "train_batch_size": world_size * finetune.clips_per_worker,
        "steps_per_print": 2**31 - 1,
        "optimizer": {"type": "AdamW", "params": {"lr": lr, "torch_adam": not (offloads and cpu_adam), "weight_decay": finetune.weight_decay}},
        "gradient_clipping": 0.0,  # DeepSpeed would clip to norm 1 unasked
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": _zero(finetune, world_size),
    }


def _zero(finetune: FinetuneConfig, world_size: int) -> dict[str, Any]:
    stage = 1 if finetune.offload == "none" and world_size > 1 else ZERO_STAGE[finetune.offload]
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": False, "contiguous_gradients": True}
    if finetune.offload == "optimizer":
        zero["offload_optimizer"] = {"device": "cpu"}
    if finetune.offload == "parameters":
        zero["offload_optimizer"] = zero["offload_param"] = {"device": "cpu"}
    if finetune.offload == "nvme":
        if finetune.nvme_path is None:
            raise InputError("finetune.offload = nvme needs finetune.nvme_path: a folder on a fast local disk")
        zero["offload_optimizer"] = zero["offload_param"] = {"device": "nvme", "nvme_path": str(finetune.nvme_path)}
    return zero
