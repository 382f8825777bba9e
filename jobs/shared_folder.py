"""The run folder of a cluster's job must be one that every node sees."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dpscale.data.checkpoint import TEMPORARY
from dpscale.data.types import InputError

_PATIENCE_S = 60.0


def check_shared(folder: Path, say: Callable[[str], object]) -> None:
    """Says that every node of the cluster sees what is written into `folder`; on one node there is nothing to say. Ray is initialised.

    Nodes that join later are not asked. Raises InputError that names those that do not see it."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    probe, text = folder / f"{TEMPORARY}{secrets.token_hex(8)}-shared", secrets.token_hex(8)
    probe.write_text(text)
    try:
        blind = [f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in _blind(nodes, probe, text)]
    finally:
        probe.unlink(missing_ok=True)
    if blind:
        raise InputError(
            f"{folder}: not seen by {', '.join(blind)}: the run folder must lie on storage that every node mounts at the same path "
            "(NFS, a shared volume); give --out a folder there"
        )
    say(f"run folder seen by all {len(nodes)} nodes")


def _blind(nodes: Iterable[dict[str, Any]], probe: Path, text: str) -> list[dict[str, Any]]:
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(_looks)
    asked = [(node, look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(probe)) for node in nodes]
    blind = []
    for node, answer in asked:
        try:
            if ray.get(answer, timeout=_PATIENCE_S) != text:
                blind.append(node)
        except (GetTimeoutError, RayError):  # it is leaving, or too busy to say: whatever runs there later will tell
            continue
    return blind


def _looks(probe: Path) -> str | None:
    return probe.read_text() if probe.exists() else None
