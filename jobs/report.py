"""`dpscale report`: report.html and summary.json from what is in the run folder, without Ray."""

from __future__ import annotations

from dpscale.config.schema import Config
from jobs.pipeline import run_stages


def run(config: Config) -> int:
    return run_stages(config, [])
