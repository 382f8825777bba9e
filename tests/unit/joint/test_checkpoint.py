from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.loop import advance, optimise_on_disk, start
from tests.unit.field.small_field import LAYERED
from tests.unit.joint.small_video import bits, inverting_refresh, small_config, small_video


def test_nothing_is_found_in_an_empty_folder(tmp_path: Path) -> None:
    store = VideoStore(tmp_path, "settings")
    assert store.load(small_video()) is None
    assert store.request() is None
    assert store.refresh(0) is None
    assert not store.has_result()


def test_another_fingerprint_sees_nothing_and_may_clean_up(tmp_path: Path) -> None:
    video = small_video()
    optimise_on_disk(video, VideoStore(tmp_path, "old"), inverting_refresh, lambda *_: None)
    new = VideoStore(tmp_path, "new")
    assert new.load(video) is None
    assert new.refresh(0) is None
    assert not new.has_result()
    (tmp_path / ".tmp-123-result").mkdir()
    (tmp_path / "checkpoints" / ".tmp-456-x").mkdir()
    new.remove_leftovers()
    assert [path.name for path in tmp_path.rglob("*") if path.parent != tmp_path] == []
    assert not (tmp_path / "result").exists()


def test_cleaning_up_keeps_what_is_whole(tmp_path: Path) -> None:
    video, store = small_video(), VideoStore(tmp_path, "settings")
    optimise_on_disk(video, store, inverting_refresh, lambda *_: None)
    before = sorted(tmp_path.rglob("*"))
    store.remove_leftovers()
    assert sorted(tmp_path.rglob("*")) == before


def test_two_states_are_kept(tmp_path: Path) -> None:
    video, store = small_video(), VideoStore(tmp_path, "settings")
    state = start(video)
    for _ in range(3):
        advance(state, video)
        store.save(state)
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == ["000000002-00000", "000000003-00000"]
    assert bits(store.load(video)) == bits(state)
    assert store.request().refresh == 0


def test_a_field_with_layers_comes_back_to_the_bit(tmp_path: Path) -> None:
    """Weights of canonical images and the body's mask follow from the driving pose: they are not saved."""
    config = small_config().model_copy(update={"field": LAYERED})
    video, store = small_video(config), VideoStore(tmp_path, "settings")
    state = start(video)
    for _ in range(2):
        advance(state, video)
    store.save(state)
    back = store.load(video)
    assert bits(back) == bits(state)
    assert torch.equal(back.field.frame_weights, state.field.frame_weights)
    assert torch.equal(back.field.body, state.field.body)
    advance(state, video)
    advance(back, video)
    assert bits(back) == bits(state)
    np.testing.assert_array_equal(back.field.render_all(), state.field.render_all())


def test_a_half_written_state_is_passed_over(tmp_path: Path) -> None:
    video, store = small_video(), VideoStore(tmp_path, "settings")
    state = start(video)
    advance(state, video)
    store.save(state)
    (tmp_path / "checkpoints" / "000000009-00000").mkdir()
    assert store.newest().name == "000000001-00000"


def test_a_refresh_is_done_once(tmp_path: Path) -> None:
    video, store = small_video(), VideoStore(tmp_path, "settings")
    state = start(video)
    while state.request is None:
        advance(state, video)
    calls = []

    def refresh(request):
        calls.append(request.refresh)
        return inverting_refresh(request)

    one, two = store.keeps(refresh)(state.request), store.keeps(refresh)(state.request)
    assert calls == [0]
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(store.refresh(0), one)


def test_the_result_tells_how_it_came_about(tmp_path: Path) -> None:
    optimise_on_disk(small_video(), VideoStore(tmp_path, "settings"), inverting_refresh, lambda *_: None)
    history = json.loads((tmp_path / "result" / "history.json").read_text())
    assert [entry["step"] for entry in history["refreshes"]] == [0, 4, 8, 10]
    frames = np.load(tmp_path / "result" / "frames.npz")
    np.testing.assert_array_equal(frames["wo_opt"], VideoStore(tmp_path, "settings").refresh(0))
    np.testing.assert_array_equal(frames["ivr_opt"], VideoStore(tmp_path, "settings").refresh(3))
    assert all(frames[name].dtype == np.uint8 for name in frames.files)
