"""What runs share, by their programs alone."""

from __future__ import annotations

import numpy as np
import pytest

from dpscale.config.schema import Config
from dpscale.joint.loop import advance, answer, is_finished, is_waiting, start
from dpscale.search.program import Answer, Program, Step, alone, forks, program, shared, together
from tests.unit.joint.small_video import inverting_refresh, small_config, small_video


def program_of(**joint: object) -> Program:
    return program(small_config(**joint), "inputs")


CHANGES = [{"from_step": 4, "flow_weight": 0.5}, {"from_step": 8, "strength_from": 0.5, "strength_to": 0.4}]
SCHEDULES = [
    {}, {"warm_up_steps": 0}, {"steps": 12}, {"steps": 9, "refresh_overlap": 3}, {"steps": 13, "warm_up_steps": 2, "refresh_overlap": 1},
    {"steps": 12, "changes": CHANGES}, {"steps": 12, "refresh_overlap": 2, "changes": CHANGES},
]  # fmt: skip


@pytest.mark.parametrize("joint", [*SCHEDULES, {"steps": 3, "refresh_interval": 5}, {"steps": 1, "refresh_interval": 1, "warm_up_steps": 1}])
def test_a_program_is_what_the_loop_does(joint: dict[str, object]) -> None:
    video = small_video(small_config(**joint))
    state, done, requests = start(video), [], []

    def refresh(request) -> np.ndarray:
        requests.append((request.refresh, request.strength))
        return inverting_refresh(request)

    while not is_finished(state, video):
        if is_waiting(state, video):
            answer(state, video, refresh)
            done.append(("answer", *requests[-1]))
        else:
            before = state.request
            advance(state, video)
            asked = state.request if state.request is not before else None
            done.append(("step", state.step, None if asked is None else (asked.refresh, asked.strength)))
    told = [
        ("step", one.step, one.asks) if isinstance(one, Step) else ("answer", one.refresh, one.strength) for one in program_of(**joint).operations
    ]
    assert told == done


def parting_step(one: Program, two: Program) -> int:
    """The first step that only one of them takes in its way."""
    operation = one.operations[shared(one, two)]
    assert isinstance(operation, Step)
    return operation.step


def test_intervals_share_every_step_before_the_first_refresh_of_one() -> None:
    four, eight, never = (program_of(steps=16, refresh_interval=interval) for interval in (4, 8, 16))
    assert parting_step(four, eight) == 4
    assert parting_step(eight, never) == 8
    assert shared(four, four) == len(four.operations)
    assert forks(four, [four, eight, never]) == [four.after_step(3)]
    assert forks(eight, [four, eight, never]) == [eight.after_step(3), eight.after_step(7)]
    assert forks(never, [never]) == []


def test_a_rung_is_kept_where_two_rest_together() -> None:
    four, eight, never = (program_of(steps=16, refresh_interval=interval) for interval in (4, 8, 16))
    assert forks(eight, [four, eight, never], rungs=[2, 6, 12]) == [eight.after_step(step) for step in (2, 3, 6, 7)]
    assert forks(four, [four, eight, never], rungs=[2, 6, 12]) == [four.after_step(step) for step in (2, 3)]


def test_strengths_part_where_they_first_differ() -> None:
    """The first refresh is of strength_from in both, the second is not; lambda and learning rate part at their first difference."""
    weak = program_of(steps=16, strength_to=0.3)
    assert parting_step(weak, program_of(steps=16, strength_to=0.5)) == 8
    assert parting_step(weak, program_of(steps=16, strength_from=0.6)) == 4
    assert parting_step(weak, program_of(steps=16, flow_weight=2.0)) == 1
    assert parting_step(weak, program_of(steps=16, flow_rise_steps=3)) == 1
    assert weak == program_of(steps=16, flow_rise_steps=1), "another setting, the same run"


def test_what_matters_later_is_shared_until_then() -> None:
    config = small_config(steps=16)
    late = config.model_copy(update={"field": config.field.model_copy(update={"lr_milestones": (4, 12)})})
    sampler = config.model_copy(update={"diffusion": config.diffusion.model_copy(update={"sampling_steps": 7})})
    plain = program(config, "inputs")
    assert parting_step(plain, program(late, "inputs")) == 7, "both halve at 4, one at 6"
    first = plain.operations[shared(plain, program(sampler, "inputs"))]
    assert isinstance(first, Answer)
    assert first.refresh == 0, "the warm-up needs no diffusion model"


def different(config: Config) -> list[Config]:
    field = config.field.model_copy(update={"samples": config.field.samples + 1})
    return [config.model_copy(update={"field": field}), *(small_config(**joint) for joint in ({"warm_up_steps": 4}, {"background_flow": True}))]


def test_different_beginnings_share_nothing() -> None:
    config = small_config()
    for other in different(config):
        assert shared(program(config, "inputs"), program(other, "inputs")) == 0
    assert shared(program(config, "inputs"), program(config, "other inputs")) == 0
    stopping = program(small_config(stop_l1=1.0), "inputs")
    assert shared(program(config, "inputs"), stopping) == 0
    assert shared(stopping, program(small_config(stop_l1=1.0, refresh_interval=5), "inputs")) > 0
    assert shared(stopping, program(small_config(stop_l1=2.0), "inputs")) == 0


def test_methods_without_representation_are_equal_to_themselves_alone() -> None:
    image, noisy = program_of(method="image"), program_of(method="noisy_image")
    assert image.operations == ()
    assert image != noisy
    assert forks(image, [noisy, program_of()], rungs=[4]) == []


def test_keys_are_equal_exactly_as_far_as_programs_are() -> None:
    one, two = program_of(steps=16), program_of(steps=16, refresh_interval=8)
    both = shared(one, two)
    assert one.keys[: both + 1] == two.keys[: both + 1]
    assert set(one.keys[both + 1 :]).isdisjoint(two.keys[both + 1 :])
    assert len(set(one.keys)) == len(one.operations) + 1


def test_work_together_counts_each_beginning_once() -> None:
    """Three warm-up steps; 16 steps, refreshes at 4, 8, 12, 16 and at 8, 16; shared: the warm-up, the first pass, steps 1 to 3."""
    one, two = program_of(steps=16), program_of(steps=16, refresh_interval=8)
    whole = [(own, len(own.operations)) for own in (one, two)]
    assert alone(whole).steps == 2 * 19
    assert together(whole).steps == 2 * 19 - 6
    assert [answer.refresh for answer in alone(whole).answers] == [0, 1, 2, 3, 4, 0, 1, 2]
    assert len(together(whole).answers) == 7
    begun = [(one, one.after_step(3)), (two, two.after_step(6))]
    assert (together(begun).steps, len(together(begun).answers)) == (3 + 3 + 3, 1)


@pytest.mark.parametrize("step", [1, 4, 5, 8, 9, 16])
def test_a_change_parts_programs_where_it_is_first_felt(step: int) -> None:
    """Refreshes are asked for at 4, 8, 12 and 16."""
    plain, weaker = program_of(steps=16), program_of(steps=16, changes=[{"from_step": step, "strength_from": 0.6, "strength_to": 0.2}])
    parting = shared(plain, weaker)
    asked_at = min(at for at in (4, 8, 12, 16) if at >= step)
    assert parting == plain.after_step(asked_at) - 1
    other = program_of(steps=16, changes=[{"from_step": step, "flow_weight": 0.5}])
    assert shared(plain, other) == plain.after_step(step) - 1
