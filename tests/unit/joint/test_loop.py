"""The loop against Algorithm 1, written out naively; resumption to the bit."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dpscale.joint import plan
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.loop import advance, answer, is_finished, is_waiting, optimise, optimise_on_disk, start
from dpscale.joint.state import JointState, RefreshRequest, new_state
from dpscale.joint.step import field_step
from dpscale.joint.video import VideoTask
from tests.unit.joint.small_video import bits, inverting_refresh, small_config, small_video


def ignore(*_: object) -> None:
    pass


def algorithm_1(video: VideoTask) -> tuple[list[tuple], JointState]:
    """The paper's listing, line by line, rendering V_s after every step; records each call as loop.optimise would make it.

    The last step refreshes in any case; `refresh_overlap` puts targets off by so many steps, to the next request at the latest."""
    joint, calls, pending = video.config.joint, [], []
    state = new_state(video)
    for step in range(1 - joint.warm_up_steps, 1):  # initialise phi
        field_step(state, video, step)
        calls.append(("step", step))
    v_s = state.field.render_all()

    def refresh(number: int, step: int, v_s: np.ndarray) -> None:
        request = RefreshRequest(number, step, plan.strength(joint, number), v_s)
        calls.append(("refresh", number, step, round(request.strength, 6), v_s.tobytes()))
        state.request = request
        state.renew_targets(inverting_refresh(request), 0.0)

    refresh(0, 0, v_s)
    for step in range(1, joint.steps + 1):
        refreshes = step % joint.refresh_interval == 0 or step == joint.steps
        if pending and (refreshes or step > pending[0][1] + joint.refresh_overlap):
            refresh(*pending.pop())
        field_step(state, video, step)
        calls.append(("step", step))
        if refreshes:
            pending.append((state.num_refreshes, step, v_s))
        v_s = state.field.render_all()
    refresh(*pending.pop())
    return calls, state


SETTINGS = [(12, 4, 0, 0), (12, 4, 3, 0), (10, 4, 3, 0), (3, 5, 2, 0), (3, 5, 0, 0), (1, 1, 1, 0), (12, 4, 3, 2), (9, 4, 0, 3), (13, 4, 2, 1)]
"""Steps, interval (divides them, does not, exceeds them), warm-up, overlap."""


@pytest.mark.parametrize(("steps", "interval", "warm_up", "overlap"), SETTINGS)
def test_the_loop_makes_the_calls_of_algorithm_1_in_its_order(steps: int, interval: int, warm_up: int, overlap: int) -> None:
    video = small_video(small_config(steps=steps, refresh_interval=interval, warm_up_steps=warm_up, refresh_overlap=overlap))
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


def requests_of(video: VideoTask) -> tuple[list[RefreshRequest], JointState, list[int]]:
    """Every request of a run, its end, and the steps that were taken."""
    seen: list[RefreshRequest] = []
    steps: list[int] = []

    def recording(request: RefreshRequest) -> np.ndarray:
        seen.append(request)
        return inverting_refresh(request)

    state = optimise(video, recording, lambda step, _: steps.append(step), ignore)
    return seen, state, steps


def test_the_output_is_a_refresh_even_where_the_interval_does_not_divide_the_steps() -> None:
    seen, _, _ = requests_of(small_video(small_config(steps=10, refresh_interval=4)))
    assert [(request.refresh, request.step) for request in seen] == [(0, 0), (1, 4), (2, 8), (3, 10)]


@pytest.mark.parametrize("method", ["image", "noisy_image"])
def test_without_representation_each_refresh_takes_up_the_last_one(method: str) -> None:
    video = small_video(small_config(method=method))
    seen, state, steps = requests_of(video)
    whole, _, _ = requests_of(small_video())
    assert steps == []
    assert [(r.refresh, r.step, r.strength) for r in seen] == [(r.refresh, r.step, r.strength) for r in whole]
    np.testing.assert_array_equal(seen[0].guidance, np.broadcast_to(video.reference, seen[0].guidance.shape))
    for before, after in pairwise(seen):
        np.testing.assert_array_equal(after.guidance, inverting_refresh(before))
    np.testing.assert_array_equal(state.targets.numpy(), inverting_refresh(seen[-1]))


def test_without_optimisation_there_is_one_pass_from_noise() -> None:
    seen, state, steps = requests_of(small_video(small_config(method="none", first_strength=0.5)))
    assert [(request.refresh, request.strength) for request in seen] == [(0, 1.0)]
    assert steps == []
    assert is_finished(state, small_video(small_config(method="none")))


def test_a_loop_whose_two_sides_agree_ends_with_the_last_refresh() -> None:
    """The second of two logged losses (every 20 steps) in a row: checks count from where the targets came into force."""
    settings = {"steps": 200, "refresh_interval": 50, "warm_up_steps": 40, "stop_l1": 255.0, "stop_checks": 2}
    seen, state, steps = requests_of(small_video(small_config(**settings)))
    assert state.history.stopped_at == 41
    assert steps[-1] == 41
    assert [(request.refresh, request.step, request.strength) for request in seen] == [(0, 0, 1.0), (1, 41, pytest.approx(0.3))]
    late, state, _ = requests_of(small_video(small_config(**settings | {"stop_checks": 3})))
    assert state.history.stopped_at is None, "an interval has two logged losses only"
    assert [request.step for request in late] == [0, 50, 100, 150, 200]
    never, state, _ = requests_of(small_video(small_config(**settings | {"stop_l1": 1e-3})))
    assert state.history.stopped_at is None
    assert [request.step for request in never] == [request.step for request in late]


def test_save_sees_the_state_after_every_step_and_refresh() -> None:
    seen: list[tuple[int, int]] = []
    optimise(
        small_video(small_config(steps=2, refresh_interval=2, warm_up_steps=1)),
        inverting_refresh,
        ignore,
        lambda s: seen.append((s.step, s.num_refreshes)),
    )
    assert seen == [(0, 0), (0, 1), (1, 1), (2, 1), (2, 2)]


STOPS = {
    "plain": ({}, range(17)),
    "overlapping": ({"refresh_overlap": 2}, range(17)),
    "image": ({"method": "image"}, range(4)),
    "none": ({"method": "none"}, range(1)),
    "stopping": ({"steps": 60, "refresh_interval": 30, "stop_l1": 255.0, "stop_checks": 1}, (3, 4, 23, 24, 25)),
}
"""Settings, and after how many steps and refreshes a run is killed."""


@pytest.mark.parametrize(("kind", "stop_after"), [(kind, stop) for kind, (_, stops) in STOPS.items() for stop in stops])
def test_resumed_equals_uninterrupted_to_the_bit(tmp_path: Path, kind: str, stop_after: int) -> None:
    """Stops after every step and refresh in turn, as a killed process would: nothing survives but the folder."""
    video, store = small_video(small_config(**STOPS[kind][0])), VideoStore(tmp_path, "settings")
    uninterrupted = optimise(video, inverting_refresh, ignore, ignore)
    state = start(video)
    for _ in range(stop_after):
        if is_waiting(state, video):
            answer(state, video, store.keeps(inverting_refresh))
        else:
            advance(state, video)
    store.save(state)
    before = bits(state) if stop_after else None
    loaded = store.load(video)
    if before is not None:
        assert bits(loaded) == before
    resumed = optimise(video, inverting_refresh, ignore, ignore, loaded)
    assert bits(resumed) == bits(uninterrupted)


def test_a_refresh_overlaps_as_many_steps_as_it_is_told() -> None:
    _, plain, _ = requests_of(small_video(small_config(steps=12)))
    _, overlapping, _ = requests_of(small_video(small_config(steps=12, refresh_overlap=3)))
    assert [entry["used_from"] for entry in plain.history.refreshes] == [1, 5, 9, 13]
    assert [entry["used_from"] for entry in overlapping.history.refreshes] == [1, 8, 12, 13]
    assert not np.array_equal(plain.targets.numpy(), overlapping.targets.numpy())


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
