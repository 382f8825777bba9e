"""What several stages ask of Ray."""

from __future__ import annotations

import logging
from collections.abc import Collection

import ray
from ray.exceptions import RayError

log = logging.getLogger(__name__)


def draining_nodes() -> Collection[str]:
    """Ids of the nodes that are going to be taken away.

    Outside Ray Train there is no public call for it (Ray 2.60). Not to hear of a notice costs steps; to ask must not cost the work."""
    try:
        return ray._private.state.state.get_draining_nodes()
    except (AttributeError, RuntimeError, RayError) as error:
        log.warning("notices that a node is going are not heard: %s: %s", type(error).__name__, error)
        return ()
