"""`dpscale optimize`: this stage alone, for every performer or video that is ready for it; then the report."""

from __future__ import annotations

from dpscale.config.schema import Config
from jobs.intervals import check_intervals
from jobs.pipeline import run_stages


def run(config: Config) -> int:
    check_intervals(config)
    return run_stages(config, ["optimize"])
