"""A node is drained, as before a spot machine is taken away, and then goes: training goes on elsewhere from the step of the notice."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from dpscale.data.layout import RunLayout
from dpscale.data.shards import write_clip
from dpscale.finetune.loop import TorchEngine
from dpscale.finetune.performer import finetune_performer
from dpscale.finetune.trainable import TrainablePart
from dpscale.tracking.tracker import NullTracker
from tests.small_performer import small_clip, small_run

pytestmark = pytest.mark.timeout(400)

DRIVER = """
import sys, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2
from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from dpscale.finetune.on_ray import finetune
from dpscale.tracking.tracker import FileTracker

config = Config.model_validate_json(Path(sys.argv[1]).read_text())
layout, workers = RunLayout.of(config), config.finetune.num_workers
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": workers - 1, "object_store_memory": 100_000_000, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1, object_store_memory=100_000_000) for _ in range(workers + 1)]
ray.init(cluster.address, log_to_driver=False)


def states():
    return sorted(path.name for path in layout.finetune("ann").glob("denoiser-*") if (path / "_COMPLETE.json").exists())


def take_away():
    while (layout.root / "started").exists() is False:
        time.sleep(0.05)
    free = ray._private.state.available_resources_per_node()
    busy = next(node for node in nodes if free[node.node_id].get("CPU", 0) < 0.5)
    gcs = ray._raylet.GcsClient(address=cluster.address)
    deadline = time.time() + 4
    gcs.drain_node(busy.node_id, autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"), "", int(deadline * 1000))
    while not states():
        time.sleep(0.05)
    (layout.root / "saved").write_text(states()[0])
    time.sleep(max(0, deadline + 0.5 - time.time()))  # Ray calls a node preempted that goes after its deadline
    cluster.remove_node(busy, allow_graceful=False)


class Told(FileTracker):
    def metrics(self, key, values, step):
        super().metrics(key, values, step)
        (layout.root / "started").touch()


threading.Thread(target=take_away, daemon=True).start()
(outcome,) = finetune(config, layout, ["ann"], Told(layout.root / "tracking.jsonl", {}))
assert outcome.ok, outcome.error
ray.shutdown()  # before the cluster: a driver that sees its raylet go ends with status 1
cluster.shutdown()
"""


def plain_torch(part: TrainablePart, lr: float, state: Mapping[str, Tensor] | None) -> TorchEngine:
    return TorchEngine(part.parameters, part.groups(0.01), lr, state)


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.slow
def test_a_drained_node_costs_nothing_but_the_steps_after_the_notice(tmp_path: Path, num_workers: int):
    config, layout, model = small_run(
        tmp_path, ("ann",), max_steps=800, epochs=1000.0, checkpoint_every=100_000, max_failures=0, num_workers=num_workers
    )
    (tmp_path / "config.json").write_text(config.model_dump_json())
    environment = os.environ | {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "1", "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.3"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path / "config.json")], env=environment, capture_output=True, text=True, timeout=360, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    saved = int((layout.root / "saved").read_text().removeprefix("denoiser-"))
    events = [json.loads(line) for line in (layout.root / "tracking.jsonl").read_text().splitlines()]
    starts = [n for n, event in enumerate(events) if event["event"] == "start" and event["key"] == "finetune/ann"]
    assert 0 < saved < 800
    assert len(starts) == 2  # once on each node
    assert min(event["step"] for event in events[starts[1] :] if "denoiser_loss" in event.get("values", {})) > saved
    card = json.loads((layout.finetune("ann") / "card.json").read_text())
    assert len(card["phases"]["denoiser"]["losses"]) == 800
    if num_workers == 1:  # resumed elsewhere equals never interrupted, to the bit
        twin = RunLayout(tmp_path / "twin")
        write_clip(twin.shard("ann", "main"), small_clip("ann", model))
        finetune_performer(config, twin, "ann", model, plain_torch, NullTracker(), "")
        found, expected = (load_file(place.finetune("ann") / "denoiser.safetensors") for place in (layout, twin))
        assert all(found[name].equal(tensor) for name, tensor in expected.items())
