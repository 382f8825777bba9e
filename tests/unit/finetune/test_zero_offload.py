from __future__ import annotations

from pathlib import Path

import pytest

from dpscale.config.schema import FinetuneConfig
from dpscale.data.types import InputError
from dpscale.finetune.zero_offload import deepspeed_settings

CPU = {"device": "cpu"}
NVME = {"device": "nvme", "nvme_path": "/fast"}


@pytest.mark.parametrize(
    ("offload", "world_size", "stage", "optimizer", "parameters"),
    [
        ("none", 1, 0, None, None),
        ("none", 2, 1, None, None),
        ("optimizer", 1, 2, CPU, None),
        ("parameters", 2, 3, CPU, CPU),
        ("nvme", 1, 3, NVME, NVME),
    ],
)
def test_levels(offload: str, world_size: int, stage: int, optimizer: dict | None, parameters: dict | None):
    settings = deepspeed_settings(FinetuneConfig(offload=offload, nvme_path=Path("/fast")), world_size, lr=1e-4, cpu_adam=True)
    zero = settings["zero_optimization"]
    assert (zero["stage"], zero.get("offload_optimizer"), zero.get("offload_param")) == (stage, optimizer, parameters)
    assert settings["train_batch_size"] == world_size
    assert settings["optimizer"]["params"] == {"lr": 1e-4, "weight_decay": 0.01, "torch_adam": offload == "none"}


def test_workers_share_the_batch():
    settings = deepspeed_settings(FinetuneConfig(batch_clips=6, num_workers=2), 2, lr=1e-4, cpu_adam=False)
    sizes = [settings[name] for name in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")]
    assert sizes == [6, 1, 3]


@pytest.mark.parametrize("offload", ["none", "optimizer", "parameters"])
def test_falls_back_to_torch_adamw_without_cpu_adam(offload: str):
    settings = deepspeed_settings(FinetuneConfig(offload=offload), 1, lr=1e-4, cpu_adam=False)
    assert settings["optimizer"]["params"]["torch_adam"] is True
    assert settings["zero_force_ds_cpu_optimizer"] is False


def test_nvme_without_a_folder_names_the_field():
    with pytest.raises(InputError, match=r"finetune\.nvme_path"):
        deepspeed_settings(FinetuneConfig(offload="nvme"), 1, lr=1e-4, cpu_adam=True)
