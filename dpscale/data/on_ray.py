"""What several stages ask of Ray."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import ray
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError

log = logging.getLogger(__name__)

_LOOK_S = 1.0


def room_for(actors: Sequence[Mapping[str, float]], wait_s: float | None) -> dict[str, float]:
    """What the cluster has, in all, as it is (`wait_s` None), or once it has grown to hold `actors` at once or `wait_s` have passed.

    An autoscaler sees what waits in Ray, and a stage decides how much to start by what is there: so it asks first."""
    if wait_s is not None and not _holds(ray.cluster_resources(), actors):
        log.warning("waiting at most %g s for the cluster to grow to %s", wait_s, dict(_total(actors)))
        request_resources(bundles=[{kind: amount for kind, amount in actor.items() if amount} for actor in actors])
        deadline = time.monotonic() + wait_s
        while not _holds(ray.cluster_resources(), actors) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        request_resources(bundles=[])  # it would hold for ever; from here on the actors speak for themselves
    return ray.cluster_resources()


def _total(actors: Sequence[Mapping[str, float]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for actor in actors:
        total.update(actor)
    return total


def _holds(cluster: Mapping[str, float], actors: Sequence[Mapping[str, float]]) -> bool:
    return all(amount <= cluster.get(kind, 0) for kind, amount in _total(actors).items())


def draining_nodes() -> Collection[str]:
    """Ids of the nodes that are going to be taken away.

    Outside Ray Train there is no public call for it (Ray 2.60). Not to hear of a notice costs steps; to ask must not cost the work."""
    try:
        return ray._private.state.state.get_draining_nodes()
    except (AttributeError, RuntimeError, RayError) as error:
        log.warning("notices that a node is going are not heard: %s: %s", type(error).__name__, error)
        return ()
