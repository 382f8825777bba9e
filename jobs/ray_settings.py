"""From the section `ray` of the config to arguments of ray.init."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from dpscale.config.schema import RayConfig

QUIET = {"RAY_AIR_NEW_OUTPUT": "0", "RAY_DATA_LOG_LEVEL": "ERROR"}
"""Tune would draw a table even when told to be quiet, Ray Data tell of every plan; what a person should see, jobs/progress.py says."""


def cluster_address(config: RayConfig) -> str | None:
    """Of the cluster to join: what the settings say, else RAY_ADDRESS, which `ray job submit` sets; None: a local Ray is started."""
    return config.address or os.environ.get("RAY_ADDRESS")


def init_arguments(config: RayConfig) -> dict[str, Any]:
    """Keyword arguments of ray.init."""
    both = {"log_to_driver": False, "logging_level": "WARNING"}
    address = cluster_address(config)
    if address is not None:
        return {**both, "address": address, "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(config.torch_threads)}}}
    return {
        **both,
        "address": "local",  # without it Ray looks for the cluster that it started last, and fails where that one was killed
        "num_cpus": config.num_cpus or max(4, (os.cpu_count() or 1) + 1),
        "object_store_memory": int(config.object_store_gib * 2**30),
        "include_dashboard": config.dashboard,
        "dashboard_host": "127.0.0.1",
        "runtime_env": {"env_vars": worker_environment(config.torch_threads)},
    }


def worker_environment(torch_threads: int) -> dict[str, str]:
    """Variables of every local worker. A spinning OpenMP pool a worker would slow all of them tenfold, hence the threads."""
    here = Path(sys.prefix)  # `make setup` compiled DeepSpeed's CPU optimiser there; loading it asks for ninja on the PATH
    variables = {"OMP_NUM_THREADS": str(torch_threads), "PATH": os.pathsep.join([str(here / "bin"), os.environ.get("PATH", "")])}
    variables["TORCH_EXTENSIONS_DIR"] = os.environ.get("TORCH_EXTENSIONS_DIR", str(here / "torch_extensions"))
    return variables if Path("/dev/nvidiactl").exists() else {**variables, "DS_ACCELERATOR": "cpu"}
