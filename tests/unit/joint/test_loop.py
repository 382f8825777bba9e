"""The loop against Algorithm 1, written out naively; resumption to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dpscale.joint import plan
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.loop import advance, is_finished, optimise, optimise_on_disk, start
from dpscale.joint.state import JointState, RefreshRequest, new_state
from dpscale.joint.step import field_step
from dpscale.joint.video import VideoTask
from tests.unit.joint.small_video import bits, inverting_refresh, small_config, small_video


def ignore(*_: object) -> None:
    pass


def algorithm_1(video: VideoTask) -> tuple[list[tuple], JointState]:
    """The paper's listing, line by line, rendering V_s after every step; records each call as loop.optimise would make it."""
    joint, calls = video.config.joint, []
    state = new_state(video)
    for step in range(1 - joint.warm_up_steps, 1):  # initialise phi
        field_step(state, video, step)
        calls.append(("step", step))
    v_s = state.field.render_all()

    def refresh(number: int, step: int) -> None:
        request = RefreshRequest(number, step, plan.strength(joint, number), v_s)
        calls.append(("refresh", number, step, round(request.strength, 6), v_s.tobytes()))
        state.request = request
        state.renew_targets(inverting_refresh(request), 0.0)

    refresh(0, 0)
    for step in range(1, joint.steps + 1):
        field_step(state, video, step)
        calls.append(("step", step))
        if step % joint.refresh_interval == 0:
            refresh(step // joint.refresh_interval, step)
        v_s = state.field.render_all()
    return calls, state


@pytest.mark.parametrize("warm_up_steps", [0, 3])
def test_the_loop_makes_the_calls_of_algorithm_1_in_its_order(warm_up_steps: int) -> None:
    video = small_video(small_config(steps=12, refresh_interval=4, warm_up_steps=warm_up_steps))
    calls: list[tuple] = []

    def recording(request: RefreshRequest) -> np.ndarray:
        calls.append(("refresh", request.refresh, request.step, round(request.strength, 6), request.guidance.tobytes()))
        return inverting_refresh(request)

    state = optimise(video, recording, lambda step, losses: calls.append(("step", step)), ignore)
    expected, reference = algorithm_1(video)
    assert [call[:4] for call in calls] == [call[:4] for call in expected]
    assert calls == expected, "a refresh saw another V_s than Algorithm 1 shows it"
    assert np.array_equal(state.targets.numpy(), reference.targets.numpy()), "the output is V_p of the last refresh"
    np.testing.assert_array_equal(state.field.render_all(), reference.field.render_all())


def test_the_output_is_a_refresh_even_where_the_interval_does_not_divide_the_steps() -> None:
    seen: list[tuple[int, int]] = []

    def recording(request: RefreshRequest) -> np.ndarray:
        seen.append((request.refresh, request.step))
        return inverting_refresh(request)

    optimise(small_video(small_config(steps=10, refresh_interval=4)), recording, ignore, ignore)
    assert seen == [(0, 0), (1, 4), (2, 8), (3, 10)]


def test_save_sees_the_state_after_every_step_and_refresh() -> None:
    seen: list[tuple[int, int]] = []
    optimise(
        small_video(small_config(steps=2, refresh_interval=2, warm_up_steps=1)),
        inverting_refresh,
        ignore,
        lambda s: seen.append((s.step, s.num_refreshes)),
    )
    assert seen == [(0, 0), (0, 1), (1, 1), (2, 1), (2, 2)]


@pytest.mark.parametrize("stop_after", range(0, 17))
def test_resumed_equals_uninterrupted_to_the_bit(tmp_path: Path, stop_after: int) -> None:
    """Stops after every step and refresh in turn, as a killed process would: nothing survives but the folder."""
    video, store = small_video(), VideoStore(tmp_path, "settings")
    uninterrupted = optimise(video, inverting_refresh, ignore, ignore)
    state = start(video)
    for _ in range(stop_after):
        if state.request is None:
            advance(state, video)
        else:
            state.renew_targets(store.keeps(inverting_refresh)(state.request), 0.0)
    store.save(state)
    before = bits(state) if stop_after else None
    loaded = store.load(small_video())
    if before is not None:
        assert bits(loaded) == before
    resumed = optimise(small_video(), inverting_refresh, ignore, ignore, loaded)
    assert bits(resumed) == bits(uninterrupted)


def test_a_killed_run_on_disk_continues(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def dies(step: int, _: object) -> None:
        if step == 7:
            raise Killed

    video, store = small_video(), VideoStore(tmp_path, "settings")
    optimise_on_disk(video, VideoStore(tmp_path / "whole", "settings"), inverting_refresh, ignore)
    with pytest.raises(Killed):
        optimise_on_disk(video, store, inverting_refresh, dies)
    assert not store.has_result()
    steps: list[int] = []
    optimise_on_disk(video, store, inverting_refresh, lambda step, _: steps.append(step))
    assert steps[0] == 7, "the state before the kill, at a slice of 3 steps, is used"
    one, two = (np.load(folder / "result" / "frames.npz") for folder in (tmp_path, tmp_path / "whole"))
    assert sorted(one.files) == ["field", "ivr_opt", "wo_opt"]
    for name in one.files:
        np.testing.assert_array_equal(one[name], two[name])


def test_finished_means_the_last_refresh_is_in() -> None:
    video = small_video()
    state = optimise(video, inverting_refresh, ignore, ignore)
    assert is_finished(state, video)
    assert state.num_refreshes == 4
    assert [entry["refresh"] for entry in state.history.refreshes] == [0, 1, 2, 3]
