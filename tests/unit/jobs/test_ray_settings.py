"""What local workers and a cluster are started with."""

from __future__ import annotations

import os

import pytest

from dpscale.config.schema import RayConfig
from jobs.ray_settings import init_arguments, worker_environment


def test_a_local_ray_follows_the_config():
    arguments = init_arguments(RayConfig(num_cpus=3, object_store_gib=0.25, torch_threads=2))
    assert arguments["address"] == "local", "never the remains of a cluster that was killed"
    assert arguments["num_cpus"] == 3
    assert arguments["object_store_memory"] == 2**28
    assert arguments["include_dashboard"] is False
    assert arguments["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "2"


def test_a_small_machine_still_has_four_logical_cpus():
    assert init_arguments(RayConfig())["num_cpus"] >= max(4, (os.cpu_count() or 1) + 1)


def test_a_cluster_is_joined_as_it_is():
    arguments = init_arguments(RayConfig(address="ray://somewhere:10001", num_cpus=3))
    assert arguments["address"] == "ray://somewhere:10001"
    assert not {"num_cpus", "object_store_memory"} & arguments.keys()
    assert arguments["runtime_env"]["env_vars"].keys() == {"OMP_NUM_THREADS"}


def test_a_submitted_job_joins_the_cluster_that_runs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert init_arguments(RayConfig())["address"] == "10.0.0.1:6379"
    assert init_arguments(RayConfig(address="auto"))["address"] == "auto"


def test_the_compiled_optimiser_may_lie_elsewhere(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "/somewhere")
    assert worker_environment(1)["TORCH_EXTENSIONS_DIR"] == "/somewhere"
