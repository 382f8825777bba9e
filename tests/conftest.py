"""Fixtures of all tests. In tests, and only here, every jaxtyping shape of dpscale is checked at run time by beartype."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Before torch and ray are imported. Tests are small: threads of one would only slow the others. The second group makes Ray Train
# poll quickly; its seconds of waiting are most of a small run otherwise.
os.environ.update(OMP_NUM_THREADS="1")
os.environ.setdefault("RAY_AUTH_MODE", "token")  # as jobs do for a local Ray; too late once a test module has imported ray
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.update(RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.1", RAY_TRAIN_ENABLE_PREEMPTION_WATCHER="0", RAY_TRAIN_METRICS_ENABLED="0")

import tests.shape_checks  # noqa: F401 (jaxtyping looks it up by name)

install_import_hook("dpscale", "tests.shape_checks.check")

settings.register_profile("dpscale", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("dpscale")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if "requires_gpu" in item.keywords]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray with four logical CPUs for the whole suite, started as jobs start it."""
    from dpscale.config.schema import RayConfig
    from jobs.cluster_session import ray_session as session

    with session(RayConfig(num_cpus=4, object_store_gib=0.3)):
        yield


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that lives as long as the suite, for inputs that several tests share."""
    return tmp_path_factory.mktemp("session")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real footage that DPSCALE_REAL_DATA names; skips without it."""
    folder = os.environ.get("DPSCALE_REAL_DATA")
    if not folder:
        pytest.skip("DPSCALE_REAL_DATA is not set")
    return Path(folder)
