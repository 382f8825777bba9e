"""One resident model for several performers, which may be interrupted at any window-step."""

from __future__ import annotations

from collections.abc import Callable
from shutil import copytree

import numpy as np
import pytest

from dpscale.config.schema import Config, DiffusionConfig, RunConfig
from dpscale.config.sources import VideoConfig
from dpscale.data.checkpoint import commit_folder
from dpscale.data.layout import RunLayout
from dpscale.data.shards import write_clip
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.delta_cache import DeltaCache
from dpscale.joint.refresh import RefreshService, RefreshStopped
from dpscale.joint.state import RefreshRequest
from tests.small_performer import SIZE, small_clip, small_model
from tests.unit.joint.finetuned import write_finetuned

NUM_FRAMES, CALLS = 4, 2 * 3
"""Frames to make; UNet calls of a pass: two steps (0.7 of three), three windows one by one."""
ANN, BEN = VideoConfig(performer="ann"), VideoConfig(performer="ben")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A base and two performers, ann's weights whole, ben's low-rank."""
    root, model = tmp_path_factory.mktemp("service"), small_model()
    model.save(root / "base")
    settings = {"sampling_steps": 3, "guidance_scale": 1.0, "window": 2, "stride": 1, "window_batch": 1}
    config = Config(run=RunConfig(name="run", root=root), diffusion=DiffusionConfig(preset="tiny", weights=str(root / "base"), **settings))
    layout = RunLayout.of(config)
    for seed, (performer, rank) in enumerate((("ann", None), ("ben", 2))):
        write_clip(layout.shard(performer, "main"), small_clip(performer, model, 6 + NUM_FRAMES, 6))
        finetuned = write_finetuned(root / performer, model, seed, rank)
        commit_folder(layout.finetune(performer), lambda folder, of=finetuned: copytree(of, folder, dirs_exist_ok=True), {"settings": "test"})
    return config


def service(config: Config) -> RefreshService:
    return RefreshService(config, RunLayout.of(config))


def request() -> RefreshRequest:
    return RefreshRequest(1, 5, 0.7, np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, SIZE, SIZE, 3), dtype=np.uint8))


def after(calls: int) -> Callable[[], bool]:
    """Asked before every call: true once `calls` are done."""
    asked = iter(range(CALLS))
    return lambda: next(asked) >= calls


def test_performers_in_turn_get_what_each_gets_alone(run: Config) -> None:
    alone = {video.performer: service(run).answer(video, request()) for video in (ANN, BEN)}
    together = service(run)
    for video in (ANN, BEN, ANN, BEN):
        np.testing.assert_array_equal(together.answer(video, request()), alone[video.performer])
    assert not np.array_equal(alone["ann"], alone["ben"])


def test_a_refresh_that_is_stopped_goes_on_elsewhere_to_the_same_bits(run: Config) -> None:
    whole = service(run).answer(ANN, request())
    one, other = service(run), service(run)
    unfinished = VideoStore.of(run, RunLayout.of(run), ANN).unfinished(1)
    for calls in range(CALLS):
        with pytest.raises(RefreshStopped):
            one.answer(ANN, request(), after(calls))
        progress = unfinished.load()
        assert (progress.step, progress.window) == divmod(calls, 3)
        other.answer(BEN, request())
        asked: list[None] = []
        np.testing.assert_array_equal(other.answer(ANN, request(), lambda asked=asked: bool(asked.append(None))), whole)
        assert len(asked) == CALLS - calls, "what was done is not done again"
        unfinished.remove()


def test_one_that_is_stopped_again_and_again_ends(run: Config) -> None:
    whole, workers = service(run).answer(BEN, request()), (service(run), service(run))
    stops = 0
    for turn in range(2 * CALLS):
        try:
            made = workers[turn % 2].answer(BEN, request(), after(1))
            break
        except RefreshStopped:
            stops += 1
    assert stops == CALLS - 1
    np.testing.assert_array_equal(made, whole)


def test_weights_read_ahead_are_not_read_again(run: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, deltas = RunLayout.of(run), DeltaCache(2**30)
    whole = service(run).answer(BEN, request())
    assert deltas.prefetch(layout.finetune("ben"))
    monkeypatch.setattr("dpscale.joint.delta_cache.read_delta", None)
    np.testing.assert_array_equal(RefreshService(run, layout, deltas).answer(BEN, request()), whole)
