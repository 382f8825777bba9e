"""`dpscale personalize`: from videos of performers to videos of them doing something else."""

from __future__ import annotations

from dpscale.config.schema import Config
from jobs.intervals import check_intervals
from jobs.pipeline import run_stages


def run(config: Config) -> int:
    check_intervals(config)
    return run_stages(config, ["preprocess", "finetune", "optimize", "evaluate"])
