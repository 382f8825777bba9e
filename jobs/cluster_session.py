"""Ray for the length of one job: a local one, or the cluster that the config names."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from dpscale.config.schema import RayConfig
from jobs.ray_settings import QUIET, cluster_address, init_arguments
from jobs.termination import terminable


@contextmanager
def ray_session(config: RayConfig) -> Iterator[None]:
    """Ray is initialised inside; one that runs already is used and left running."""
    if cluster_address(config) is None:
        _private_token()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray  # a second of import, and it reads the variables set above

    owned = not ray.is_initialized()
    if owned:
        ray.init(**init_arguments(config))
    try:
        with terminable():  # after ray.init, which installs a handler of its own
            yield
    finally:
        if owned:
            ray.shutdown()


def _private_token() -> None:
    """A token of its own for a local Ray: nobody else on the machine can drive it, and ~/.ray/auth_token, which would switch
    authentication on in clusters started later, is not written. Whoever set RAY_AUTH_MODE knows what they want."""
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
