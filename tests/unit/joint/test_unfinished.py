"""A refresh that is killed after any UNet call and continued from disk gives the bits of one that is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dpscale.config.schema import Config, DiffusionConfig
from dpscale.diffusion.reference import known_frames
from dpscale.diffusion.refine import Progress
from dpscale.diffusion.weights import PoseVideoModel
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.refresh import DiffusionRefresh
from dpscale.joint.state import RefreshRequest
from dpscale.joint.unfinished import UnfinishedRefresh
from dpscale.joint.video import VideoTask
from tests.small_performer import SIZE, small_clip, small_model

FRAMES, SETTINGS = 9, {"preset": "tiny", "sampling_steps": 4, "guidance_scale": 3.0, "window": 4, "stride": 2, "window_batch": 4}
CALLS = 2 * 3
"""Four windows, two to a call with guidance; strength 0.7 of four steps."""


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def model() -> PoseVideoModel:
    return small_model()


def video(model: PoseVideoModel, sampler: str) -> VideoTask:
    clip = small_clip("someone", model, num_frames=FRAMES, num_train=3)
    config = Config(diffusion=DiffusionConfig(**SETTINGS, sampler={"kind": sampler}))
    return VideoTask("someone--self", config, clip.pose, clip.frames[0], clip.image_embedding, known_frames(clip))


def request() -> RefreshRequest:
    return RefreshRequest(1, 5, 0.7, np.random.default_rng(0).integers(0, 256, (FRAMES, SIZE, SIZE, 3), dtype=np.uint8))


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "unipc"])
def test_a_kill_after_any_call_changes_no_bit(model: PoseVideoModel, sampler: str, tmp_path: Path) -> None:
    task, steps_and_windows = video(model, sampler), []
    whole = DiffusionRefresh(model, task)(request(), save=lambda progress: steps_and_windows.append((progress.step, progress.window)))
    assert len(steps_and_windows) == CALLS
    for call in range(CALLS):
        unfinished = UnfinishedRefresh(tmp_path / str(call), "settings", 1)
        with pytest.raises(Killed):
            DiffusionRefresh(model, task)(request(), save=dies_after(call, unfinished))
        progress = unfinished.load()
        assert (progress.step, progress.window) == steps_and_windows[call]
        left: list[Progress] = []
        np.testing.assert_array_equal(DiffusionRefresh(model, task)(request(), progress, left.append), whole)
        assert len(left) == CALLS - call - 1, "what was done is not done again"


def dies_after(call: int, unfinished: UnfinishedRefresh):
    def save(progress: Progress) -> None:
        unfinished.save(progress)
        save.calls += 1
        if save.calls > call:
            raise Killed

    save.calls = 0
    return save


def some_progress(step: int = 1, window: int = 2) -> Progress:
    g = torch.Generator().manual_seed(step)
    latents, clean, pending = (torch.randn(2, n, 3, 3, generator=g) for n in (7, 7, 2))
    return Progress(latents, {"clean": clean}, step, window, pending)


def test_the_newest_is_kept_alone_and_read_to_the_bit(tmp_path: Path) -> None:
    unfinished = UnfinishedRefresh(tmp_path, "settings", 3)
    UnfinishedRefresh(tmp_path, "settings", 2).save(some_progress())
    for step in (1, 2):
        unfinished.save(some_progress(step))
    assert [folder.name for folder in tmp_path.iterdir()] == ["00003-00002-0000002"]
    found, saved = unfinished.load(), some_progress(2)
    assert (found.step, found.window) == (2, 2)
    assert torch.equal(found.latents, saved.latents)
    assert torch.equal(found.memory["clean"], saved.memory["clean"])
    assert torch.equal(found.pending, saved.pending)


def test_a_step_boundary_has_no_pending_sums(tmp_path: Path) -> None:
    unfinished, progress = UnfinishedRefresh(tmp_path, "settings", 0), some_progress()
    progress.pending = None
    unfinished.save(progress)
    assert unfinished.load().pending is None


def test_others_see_nothing_and_a_half_written_one_is_passed_over(tmp_path: Path) -> None:
    unfinished = UnfinishedRefresh(tmp_path, "settings", 3)
    unfinished.save(some_progress())
    assert UnfinishedRefresh(tmp_path, "other", 3).load() is None
    assert UnfinishedRefresh(tmp_path, "settings", 2).load() is None
    (tmp_path / "00003-00009-0000000").mkdir()
    assert unfinished.load().step == 1
    unfinished.remove()
    assert list(tmp_path.iterdir()) == []


def test_it_saves_as_often_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("dpscale.joint.unfinished.time.monotonic", lambda: now[0])
    unfinished, kept = UnfinishedRefresh(tmp_path, "settings", 0), []
    save = unfinished.saves_every(10)
    for step, at in enumerate((5.0, 9.0, 10.0, 15.0, 20.5)):
        now[0] = at
        save(some_progress(step))
        kept.append([folder.name for folder in tmp_path.glob("*")])
    assert kept == [[], [], ["00000-00002-0000002"], ["00000-00002-0000002"], ["00000-00004-0000002"]]


def test_committing_a_refresh_removes_its_progress(tmp_path: Path) -> None:
    store = VideoStore(tmp_path, "settings")
    store.unfinished(1).save(some_progress())
    store.put_refresh(1, np.zeros((2, 4, 4, 3), np.uint8), 1.0)
    assert store.unfinished(1).load() is None
    assert not list((tmp_path / "unfinished").iterdir())
