"""`dpscale preprocess`: this stage alone, for every performer or video that is ready for it; then the report."""

from __future__ import annotations

from dpscale.config.schema import Config
from jobs.pipeline import run_stages


def run(config: Config) -> int:
    return run_stages(config, ["preprocess"])
