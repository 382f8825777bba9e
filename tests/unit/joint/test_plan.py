from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpscale.config.schema import JointConfig
from dpscale.joint import plan


def test_the_paper_refreshes_five_times_and_at_the_last_step() -> None:
    joint = JointConfig()
    assert [step for step in range(-500, 10_001) if plan.refreshes_at(joint, step)] == [2000, 4000, 6000, 8000, 10_000]
    assert plan.num_refreshes(joint) == 5


def test_strength_is_full_at_first_and_then_falls_linearly() -> None:
    assert [plan.strength(JointConfig(), refresh) for refresh in range(6)] == pytest.approx([1.0, 0.7, 0.6, 0.5, 0.4, 0.3])


def test_a_single_refresh_has_the_strength_at_which_the_fall_begins() -> None:
    assert plan.strength(JointConfig(steps=100, refresh_interval=100), 1) == pytest.approx(0.7)


@given(steps=st.integers(1, 200), interval=st.integers(1, 250))
def test_counts_agree(steps: int, interval: int) -> None:
    joint = JointConfig(steps=steps, refresh_interval=interval)
    at = [step for step in range(1, steps + 1) if plan.refreshes_at(joint, step)]
    assert at[-1] == steps, "the refresh at the last step is the output"
    assert [plan.step_of(joint, refresh) for refresh in range(1, plan.num_refreshes(joint) + 1)] == at


@given(steps=st.integers(1, 60), interval=st.integers(1, 70), overlap=st.integers(0, 69))
def test_targets_are_needed_between_their_request_and_the_next(steps: int, interval: int, overlap: int) -> None:
    joint = JointConfig(steps=steps, refresh_interval=interval, refresh_overlap=overlap % interval)
    for refresh in range(plan.num_refreshes(joint) + 1):
        asked_at = plan.step_of(joint, refresh)
        needed = plan.needed_by(joint, refresh, asked_at)
        assert asked_at <= needed <= min(asked_at + joint.refresh_overlap, steps)
        assert refresh > 0 or needed == 0, "without targets no step can be taken"
        assert asked_at == steps or needed < plan.step_of(joint, refresh + 1)


def test_the_ablations_refresh_as_often_and_as_strongly() -> None:
    whole = JointConfig()
    for method in ("image", "noisy_image"):
        ablated = JointConfig(method=method)
        assert [plan.strength(ablated, n) for n in range(6)] == [plan.strength(whole, n) for n in range(6)]
        assert plan.num_refreshes(ablated) == 5
    assert plan.num_refreshes(JointConfig(method="none")) == 0


def test_an_overlap_ends_before_the_next_refresh() -> None:
    with pytest.raises(ValueError, match=r"refresh_overlap = 2000 must be below joint.refresh_interval = 2000"):
        JointConfig(refresh_overlap=2000)


def test_changes_are_in_force_from_their_steps_on() -> None:
    changes = [{"from_step": 41, "flow_weight": 0.5, "strength_from": 0.6}, {"from_step": 61, "strength_from": 0.4, "strength_to": 0.4}]
    joint, plain = JointConfig(steps=80, refresh_interval=20, changes=changes), JointConfig(steps=80, refresh_interval=20)
    assert [plan.flow_weight(joint, step) for step in (1, 40, 41, 61, 80)] == [1.0, 1.0, 0.5, 0.5, 0.5]
    assert [plan.strength(joint, n) for n in range(3)] == [plan.strength(plain, n) for n in range(3)]
    assert plan.strength(joint, 3) == pytest.approx(0.6 + 2 / 3 * (0.3 - 0.6))
    assert plan.strength(joint, 4) == 0.4
    assert joint.at(40) == plain
    assert joint.at(0) == plain


@pytest.mark.parametrize("steps", [(5, 5), (9, 5), (101,)])
def test_changes_come_in_order_and_within_the_run(steps: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"joint\.changes: from_step must rise from each to the next and be at most joint\.steps = 100"):
        JointConfig(steps=100, refresh_interval=10, changes=[{"from_step": step} for step in steps])
