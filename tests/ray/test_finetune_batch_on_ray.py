"""A batch of performers: two of eight broken, a killed driver, priorities, tenants, and requests that no node can hold."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dpscale.config.sources import VideoPerformer
from dpscale.data.layout import RunLayout
from dpscale.data.shards import write_clip
from dpscale.data.types import InputError
from dpscale.tracking.tracker import FileTracker, NullTracker
from tests.small_performer import small_clip, small_run

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(600)]

NAMES = tuple(f"p{n:02d}" for n in range(8))

DRIVER = """
import sys
from pathlib import Path
from dpscale.config.schema import Config, RayConfig
from dpscale.data.layout import RunLayout
from dpscale.tracking.tracker import NullTracker
from jobs.cluster_session import ray_session

config = Config.model_validate_json(Path(sys.argv[1]).read_text())
with ray_session(RayConfig(num_cpus=4, object_store_gib=0.3)):
    from dpscale.finetune.on_ray import finetune
    finetune(config, RunLayout.of(config), sys.argv[2:], NullTracker())
"""


def finished(layout: RunLayout) -> dict[str, int]:
    """When each finished performer's weights were written."""
    done = [name for name in NAMES if (layout.finetune(name) / "_COMPLETE.json").exists()]
    return {name: (layout.finetune(name) / "denoiser.safetensors").stat().st_mtime_ns for name in done}


@pytest.mark.slow
def test_eight_performers_two_broken_and_a_killed_driver(tmp_path: Path):
    from dpscale.finetune.on_ray import finetune

    config, layout, model = small_run(tmp_path, NAMES, max_concurrent=2, max_failures=0)
    misfit, diverging = small_clip("p01", model), small_clip("p05", model)
    write_clip(layout.shard("p01", "main"), replace(misfit, latents=np.zeros((15, 4, 4, 4), np.float32)))
    write_clip(layout.shard("p05", "main"), replace(diverging, latents=np.full_like(diverging.latents, np.nan)))
    (tmp_path / "config.json").write_text(config.model_dump_json())
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path / "config.json"), *NAMES], env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 300
    while len(finished(layout)) < 3 and driver.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    assert driver.wait(timeout=60) == -signal.SIGKILL
    before = finished(layout)
    assert 3 <= len(before) < 6
    outcomes = {outcome.name: outcome for outcome in finetune(config, layout, NAMES, NullTracker())}
    assert list(outcomes) == list(NAMES)
    assert {name for name, outcome in outcomes.items() if not outcome.ok} == {"p01", "p05"}
    assert "delete it and preprocess again" in (outcomes["p01"].error or "")
    assert "lower the learning rate" in (outcomes["p05"].error or "")
    assert {name for name, outcome in outcomes.items() if outcome.skipped} == set(before)
    assert before.items() <= finished(layout).items()


@pytest.mark.slow
def test_priority_decides_and_a_tenant_at_its_cap_waits(tmp_path: Path):
    from dpscale.finetune.on_ray import finetune

    names = ("ann", "bea", "cat", "dan")
    config, layout, _ = small_run(tmp_path, names, max_concurrent=2, max_per_tenant=1)
    wanted = {"ann": ("lab", 0), "bea": ("lab", 5), "cat": ("lab", 1), "dan": ("shop", -7)}
    performers = tuple(VideoPerformer(name=n, path=Path("unused.mp4"), tenant=t, priority=p) for n, (t, p) in wanted.items())
    config = config.model_copy(update={"performers": performers})
    assert all(outcome.ok for outcome in finetune(config, layout, names, FileTracker(tmp_path / "tracking.jsonl", {})))
    events = [json.loads(line) for line in (tmp_path / "tracking.jsonl").read_text().splitlines()]
    order = [(e["event"], e["key"].removeprefix("finetune/")) for e in events if e["event"] in ("start", "finish")]
    lab = [event for event in order if wanted.get(event[1], ("",))[0] == "lab"]
    assert lab == [(what, name) for name in ("bea", "cat", "ann") for what in ("start", "finish")], "one of the lab at a time, by priority"
    assert order.index(("start", "dan")) < order.index(("finish", "cat")), "the shop's did not wait for the lab's"


def test_a_request_that_no_node_can_hold_is_refused_with_the_numbers(tmp_path: Path):
    from dpscale.finetune.on_ray import finetune

    config, layout, _ = small_run(tmp_path, ("ann",), num_workers=50)
    with pytest.raises(InputError, match=r"finetune.num_workers = 50: each worker needs 1 CPU on one node, .* room for 4 of them \(nodes: 4 CPU\)"):
        finetune(config, layout, ("ann",), NullTracker())
