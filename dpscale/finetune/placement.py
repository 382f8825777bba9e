"""Whether a cluster can ever hold what a performer's finetuning asks for. No Ray in here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dpscale.data.types import InputError

Resources = Mapping[str, float]


def check_placeable(worker: Resources, num_workers: int, nodes: Sequence[Resources]) -> None:
    """Raises InputError with the numbers if `num_workers` workers that need `worker` each do not fit on empty nodes.

    A worker lies on one node; several may share one. A cluster that can still grow has to show a node first, so what fits nowhere now is
    refused instead of waiting for ever."""
    room = num_places(worker, nodes)
    if room >= num_workers:
        return
    need = " and ".join(f"{amount:g} {name}" for name, amount in worker.items() if amount > 0)
    have = "; ".join(", ".join(f"{node.get(name, 0):g} {name}" for name in worker) for node in nodes) or "no node"
    raise InputError(
        f"finetune.num_workers = {num_workers}: each worker needs {need} on one node, and the cluster has room for {room} of them "
        f"(nodes: {have}): ask for fewer workers, or add nodes"
    )


def num_places(worker: Resources, nodes: Sequence[Resources]) -> int:
    """How many workers the empty nodes hold together."""
    needs = {name: amount for name, amount in worker.items() if amount > 0}
    return sum(min(int((node.get(name, 0) + 1e-9) // amount) for name, amount in needs.items()) for node in nodes)
