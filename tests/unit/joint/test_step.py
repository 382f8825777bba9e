from __future__ import annotations

import numpy as np
import pytest
import torch

from dpscale.config.field import NeighbourLossesConfig
from dpscale.config.schema import FieldConfig, JointConfig
from dpscale.joint.state import new_state
from dpscale.joint.step import field_step, flow_weight, learning_rate
from tests.unit.field.small_field import SMALL
from tests.unit.joint.small_video import NUM_FRAMES, small_config, small_video


def test_the_rate_halves_after_each_milestone() -> None:
    rates = [learning_rate(FieldConfig(), step) for step in (-499, 0, 1, 2500, 2501, 5001, 7501)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 1e-3, 5e-4, 2.5e-4, 1.25e-4])


def test_a_step_depends_on_seed_video_and_number_alone() -> None:
    def after(video, step: int) -> torch.Tensor:
        state = new_state(video)
        field_step(state, video, step)
        return state.field.canonicals[0].grid.table.detach()

    one = after(small_video(), -1)
    torch.manual_seed(123)
    assert torch.equal(one, after(small_video(), -1))
    assert not torch.equal(one, after(small_video(), -2))
    assert not torch.equal(one, after(small_video(name="other--self"), -1))


def test_the_warm_up_fits_every_frame_to_the_reference() -> None:
    video = small_video(small_config(warm_up_steps=150))
    state = new_state(video)

    def error() -> float:
        return float(np.abs(state.field.render_all().astype(float) - video.reference).mean())

    before = error()
    for step in range(-149, 1):
        losses = field_step(state, video, step)
    assert float(losses.flow) == 0, "there is no flow between copies of one picture"
    assert error() < before / 2


def test_steps_reduce_both_losses() -> None:
    video = small_video()
    state = new_state(video)
    state.targets = torch.from_numpy(np.broadcast_to(video.reference, (NUM_FRAMES, *video.reference.shape)).copy())
    losses = [field_step(state, video, step) for step in range(1, 151)]
    early, late = losses[:20], losses[-20:]
    for name in ("reconstruction", "flow"):
        assert sum(float(getattr(one, name)) for one in late) < sum(float(getattr(one, name)) for one in early)


def test_without_flow_weight_no_flow_is_sampled() -> None:
    video = small_video(small_config(flow_weight=0.0))
    state = new_state(video)
    state.targets = torch.zeros((*video.shape, 3), dtype=torch.uint8)
    assert float(field_step(state, video, 1).flow) == 0


def test_the_flow_weight_is_constant_by_default() -> None:
    joint = JointConfig(flow_weight=0.7, steps=100)
    assert {flow_weight(joint, step) for step in range(1, 101)} == {0.7}


def test_the_flow_weight_runs_from_one_value_to_the_other() -> None:
    joint = JointConfig(flow_weight=2.0, flow_weight_to=0.5, steps=101)
    assert [flow_weight(joint, step) for step in (1, 51, 101)] == pytest.approx([2.0, 1.25, 0.5])


def test_the_flow_weight_rises_over_the_first_steps() -> None:
    joint = JointConfig(flow_weight=2.0, flow_rise_steps=4, steps=100)
    assert [flow_weight(joint, step) for step in (1, 2, 3, 4, 5, 100)] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0])
    falling = JointConfig(flow_weight=2.0, flow_weight_to=0.0, flow_rise_steps=4, steps=5)
    assert [flow_weight(falling, step) for step in range(1, 6)] == pytest.approx([0.5, 0.75, 0.75, 0.5, 0.0])


def test_a_step_takes_the_flow_weight_of_its_number() -> None:
    video = small_video(small_config(flow_weight=3.0, flow_weight_to=1.0))
    for step, expected in ((1, 3.0), (10, 1.0)):
        state = new_state(video)
        state.targets = torch.zeros((*video.shape, 3), dtype=torch.uint8)
        losses = field_step(state, video, step)
        assert float(losses.flow) > 0
        assert float(losses.total) == pytest.approx(float(losses.reconstruction) + expected * float(losses.flow))


def test_losses_on_neighbours_are_taken_where_they_have_a_weight() -> None:
    field = SMALL.model_copy(update={"neighbour_losses": NeighbourLossesConfig(samples=64, gradient_weight=2.0)})
    video = small_video(small_config().model_copy(update={"field": field}))
    state = new_state(video)
    state.targets = torch.randint(256, (*video.shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    losses = field_step(state, video, 1)
    assert float(losses.gradient) > 0
    assert float(losses.total) == pytest.approx(float(losses.reconstruction + losses.flow + 2.0 * losses.gradient))
