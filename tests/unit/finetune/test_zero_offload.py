from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dpscale.config.schema import FinetuneConfig
from dpscale.finetune.zero_offload import SUB_GROUP, deepspeed_settings

CPU = {"device": "cpu", "pin_memory": True}
NVME = {"device": "nvme", "nvme_path": "/fast/mine", "pin_memory": True}


def settings_of(offload: str, world_size: int = 1, *, cpu_adam: bool = True) -> dict[str, Any]:
    finetune = FinetuneConfig.model_validate({"offload": offload, "nvme_path": "/fast"})
    return deepspeed_settings(
        finetune, world_size, lr=1e-4, cpu_adam=cpu_adam, largest_parameter=1000, pin_memory=True, nvme_folder=Path("/fast/mine")
    )


@pytest.mark.parametrize(
    ("offload", "world_size", "stage", "optimizer", "parameters"),
    [
        ("none", 1, 0, None, None),
        ("none", 2, 1, None, None),
        ("optimizer", 1, 2, CPU, None),
        ("parameters", 2, 3, CPU, CPU),
        ("nvme", 1, 3, NVME | {"buffer_count": 4}, NVME | {"buffer_count": 5, "buffer_size": 1000, "max_in_cpu": 0}),
    ],
)
def test_levels(offload: str, world_size: int, stage: int, optimizer: dict | None, parameters: dict | None):
    settings = settings_of(offload, world_size)
    zero = settings["zero_optimization"]
    assert (zero["stage"], zero.get("offload_optimizer"), zero.get("offload_param")) == (stage, optimizer, parameters)
    assert (zero["reduce_bucket_size"], zero["allgather_bucket_size"]) == (1000, 1000)
    assert settings["train_batch_size"] == world_size
    assert settings["optimizer"]["params"] == {"lr": 1e-4, "weight_decay": 0.01, "torch_adam": offload == "none"}


def test_workers_share_the_batch():
    settings = deepspeed_settings(FinetuneConfig(batch_clips=6, num_workers=2), 2, lr=1e-4, cpu_adam=False, largest_parameter=1)
    sizes = [settings[name] for name in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")]
    assert sizes == [6, 1, 3]


@pytest.mark.parametrize("offload", ["none", "optimizer", "parameters", "nvme"])
def test_falls_back_to_torch_adamw_without_cpu_adam(offload: str):
    settings = settings_of(offload, cpu_adam=False)
    assert settings["optimizer"]["params"]["torch_adam"] is True
    assert settings["zero_force_ds_cpu_optimizer"] is False


def test_sub_groups_begin_with_every_tensor_that_goes_to_the_disk():
    settings = settings_of("nvme")
    assert settings["zero_optimization"]["sub_group_size"] == SUB_GROUP == settings["aio"]["block_size"] // 4
