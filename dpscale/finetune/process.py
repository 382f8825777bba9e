"""What the processes of finetuning need around them: environment of Tune and Train, threads, DeepSpeed's accelerator."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch

from dpscale.config.schema import Config
from dpscale.data.heap import keep_heap_small

TUNE_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths in the config are relative to where the command was given
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the tracker logs; JSON is how results come back
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the run; the same command resumes it
}
TRAIN_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # the default of 2 s is added to the start and the end of every trainer
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",  # 5 by default, of notices that may be half a minute long
}


def set_defaults(environment: Mapping[str, str]) -> None:
    """Environment variables that the user did not set."""
    for name, value in environment.items():
        os.environ.setdefault(name, value)


def prepare_process(config: Config) -> None:
    """Before anything is computed here."""
    torch.set_num_threads(config.ray.torch_threads)
    os.environ.setdefault("LOCAL_RANK", "0")
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if config.finetune.offload == "nvme":
        keep_heap_small()
