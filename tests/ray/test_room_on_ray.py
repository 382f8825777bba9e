"""A stage on a cluster that grows: it waits for the room that it asks for, and no longer than it is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

DRIVER = """
import json, time
from concurrent.futures import ThreadPoolExecutor
import ray
from ray.cluster_utils import Cluster
from dpscale.data.on_ray import room_for

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100_000_000, "include_dashboard": False})
ray.init(cluster.address, log_to_driver=False)
actors, start = [{"CPU": 1.0, "GPU": 0.25}] * 4, time.monotonic()
told = {"empty": room_for(actors, None), "late": room_for(actors, 1.0), "waited_s": time.monotonic() - start}
with ThreadPoolExecutor(1) as pool:  # the machine comes from here: Ray starts nodes in the main thread only
    grown = pool.submit(room_for, actors, 60)
    time.sleep(2)
    told["still_waiting"] = not grown.done()
    cluster.add_node(num_cpus=4, num_gpus=1, object_store_memory=100_000_000)
    told["grown"] = grown.result()
start = time.monotonic()
room_for(actors, 60)
print(json.dumps({**told, "waited_again_s": time.monotonic() - start}))
ray.shutdown()
"""


def test_a_stage_waits_for_machines_that_come():
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(Path(__file__).parents[2])}
    driver = subprocess.run([sys.executable, "-c", DRIVER], capture_output=True, text=True, timeout=150, env=environment)
    assert driver.returncode == 0, driver.stderr
    told = json.loads(driver.stdout.splitlines()[-1])
    assert told["empty"].get("CPU", 0) == told["late"].get("CPU", 0) == 0
    assert 1 <= told["waited_s"] < 10
    assert told["still_waiting"]
    assert (told["grown"]["CPU"], told["grown"]["GPU"]) == (4, 1)
    assert told["waited_again_s"] < 1
    assert "waiting at most 60 s for the cluster to grow to {'CPU': 4.0, 'GPU': 1.0}" in driver.stderr
