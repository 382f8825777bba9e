from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dpscale.config.schema import Config
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.loop import advance, optimise_on_disk, start
from dpscale.joint.state import JointState
from tests.unit.field.small_field import GRID, LAYERED, SMALL
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


def config_with(**grid: str) -> Config:
    """small_config with other grids."""
    grids = {name: GRID.model_copy(update=grid) for name in ("deformation_grid", "canonical_grid")}
    return small_config().model_copy(update={"field": SMALL.model_copy(update=grids)})


def tables_and_moments(state: JointState) -> dict[str, torch.Tensor]:
    """[features, rows], whatever the kind of grid."""
    found = {}
    for name, parameter in state.field.named_parameters():
        moments = state.optimizer.state[parameter]
        found |= {f"{name} {key}": t.detach() for key, t in {"value": parameter, **{k: moments[k] for k in ("exp_avg", "exp_avg_sq")}}.items()}
    return {name: t.t() if t.ndim == 2 and t.shape[0] > t.shape[1] and "table" in name else t for name, t in found.items()}


@pytest.mark.parametrize(("written", "read"), [("fused", "reference"), ("reference", "fused")])
def test_a_checkpoint_can_be_read_by_the_other_kind_of_grid(tmp_path: Path, written: str, read: str) -> None:
    state = start(small_video(config_with(kind=written)))
    for _ in range(3):
        advance(state, small_video(config_with(kind=written)))
    VideoStore(tmp_path, "settings").save(state)
    other = VideoStore(tmp_path, "settings").load(small_video(config_with(kind=read)))
    assert type(other.field.deformation.grid) is not type(state.field.deformation.grid)
    ours, theirs = tables_and_moments(state), tables_and_moments(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    # Both go on alike, up to the rounding of float32 in steps of lr = 1e-2.
    for each in (state, other):
        each.targets = torch.full((*small_video().shape, 3), 200, dtype=torch.uint8)
        each.request = None
    advance(state, small_video(config_with(kind=written)))
    advance(other, small_video(config_with(kind=read)))
    for name, tensor in tables_and_moments(state).items():
        torch.testing.assert_close(tensor, tables_and_moments(other)[name], rtol=1e-3, atol=1e-4)


def test_bfloat16_tables_are_restored_to_the_bit(tmp_path: Path) -> None:
    video = small_video(config_with(table_dtype="bfloat16"))
    whole, store = start(video), VideoStore(tmp_path, "settings")
    for _ in range(2):
        advance(whole, video)
    store.save(whole)
    resumed = store.load(video)
    for state in (whole, resumed):
        advance(state, video)
    assert whole.field.canonicals[0].grid.table.dtype == torch.bfloat16
    ours, theirs = tables_and_moments(whole), tables_and_moments(resumed)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
