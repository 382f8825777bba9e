"""`dpscale personalize`: from videos of performers to videos of them doing something else."""

from __future__ import annotations

from dpscale.config.schema import Config
from jobs.pipeline import run_stages


def run(config: Config) -> int:
    return run_stages(config, ["preprocess", "finetune", "optimize", "evaluate"])
