"""A refresh worker that is stopped, or killed by the kernel, in the middle of a pass: another one goes on, and no bit changes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray.exceptions import RayActorError

from dpscale.config.schema import Config, DiffusionConfig, JointConfig, RayConfig, RunConfig, SchedulerConfig
from dpscale.config.sources import VideoConfig
from dpscale.data.checkpoint import commit_folder
from dpscale.data.layout import RunLayout
from dpscale.data.shards import write_clip
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.loop import start
from dpscale.joint.on_ray import RefreshWorker
from dpscale.joint.refresh import RefreshService
from dpscale.joint.video import load_task
from tests.small_performer import small_clip, small_model
from tests.unit.field.small_field import SMALL
from tests.unit.joint.finetuned import write_finetuned

ANN, BEN = VideoConfig(performer="ann"), VideoConfig(performer="ben")
STEPS, WINDOWS = 40, 3
WAIT_S = 120


@pytest.fixture
def run(tmp_path: Path) -> tuple[Config, RunLayout]:
    """Two videos that wait for their first pass, whose progress is saved after every one of its 120 calls."""
    model = small_model()
    model.save(tmp_path / "base")
    settings = {"sampling_steps": STEPS, "guidance_scale": 1.0, "window": 2, "stride": 1, "window_batch": 1}
    config = Config(
        run=RunConfig(name="run", root=tmp_path), ray=RayConfig(torch_threads=1), field=SMALL, joint=JointConfig(warm_up_steps=0),
        diffusion=DiffusionConfig(preset="tiny", weights=str(tmp_path / "base"), **settings), scheduler=SchedulerConfig(refresh_checkpoint_s=0),
    )  # fmt: skip
    layout = RunLayout.of(config)
    for seed, video in enumerate((ANN, BEN)):
        write_clip(layout.shard(video.performer, "main"), small_clip(video.performer, model, 6 + WINDOWS + 1, 6))
        commit_folder(layout.finetune(video.performer), lambda folder, seed=seed: write_finetuned(folder, model, seed), {"settings": "test"})
        store = VideoStore.of(config, layout, video)
        store.save(start(load_task(config, layout, video), keep=store.keep_guidance))
    return config, layout


def whole(config: Config, layout: RunLayout, video: VideoConfig) -> np.ndarray:
    """The pass in this process, in one go; what it leaves on disk is removed."""
    store = VideoStore.of(config, layout, video)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.ray.torch_threads)
    made = RefreshService(config, layout).answer(video, store.request())
    torch.set_num_threads(threads)
    store.unfinished(0).remove()
    return made


def worker(config: Config, layout: RunLayout) -> Any:
    return RefreshWorker.options(num_cpus=1).remote(config, layout)


def await_progress(store: VideoStore, step: int) -> None:
    """Until the pass is at `step` or further."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if any(int(path.name.split("-")[1]) >= step for path in (store.folder / "unfinished").glob("[0-9]*")):
            return
        time.sleep(0.005)
    raise AssertionError("the refresh did not start")


def test_stopped_and_killed_workers_change_no_bit(ray_session: None, run: tuple[Config, RunLayout]) -> None:
    config, layout = run
    store, expected = VideoStore.of(config, layout, ANN), whole(config, layout, ANN)
    first = worker(config, layout)
    pid = ray.get(first.__ray_call__.remote(lambda _: os.getpid()))
    refresh = first.refresh.remote(ANN)
    await_progress(store, 1)
    assert not ray.get(first.stop_at_window_step.remote(BEN)), "another video's refresh is left alone"
    assert ray.get(first.stop_at_window_step.remote(ANN))
    receipt = ray.get(refresh, timeout=WAIT_S)
    assert not receipt.finished
    assert (receipt.refresh, receipt.step, receipt.strength) == (0, 0, 1.0)
    assert store.refresh_s(0) is None
    stopped = store.unfinished(0).load()
    assert 1 <= stopped.step < STEPS
    assert not ray.get(first.stop_at_window_step.remote(ANN)), "nothing runs"

    refresh = first.refresh.remote(ANN)
    await_progress(store, stopped.step + 2)
    assert ray.get(first.prefetch.remote("ben"))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RayActorError):
        ray.get(refresh, timeout=WAIT_S)
    assert store.refresh_s(0) is None
    assert stopped.step + 2 <= store.unfinished(0).load().step < STEPS

    second = worker(config, layout)
    assert ray.get(second.refresh.remote(ANN), timeout=WAIT_S).finished
    np.testing.assert_array_equal(store.refresh(0), expected)
    assert ray.get(second.refresh.remote(BEN), timeout=WAIT_S).finished
    np.testing.assert_array_equal(VideoStore.of(config, layout, BEN).refresh(0), whole(config, layout, BEN))
    ray.kill(second)
