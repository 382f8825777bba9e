from __future__ import annotations

from dpscale.config.schema import Config, DiffusionConfig, JointConfig, ObjectiveConfig
from dpscale.search.cost import calls_of, cost, denoiser_calls, whole_calls, whole_steps
from dpscale.search.program import alone, program

PAPER = Config(joint=JointConfig(strength_from=1.0, strength_to=1.0))


def test_the_paper_s_count() -> None:
    """METHOD 6: 300 frames, 50 steps, six passes at full strength = 11,100 calls."""
    assert whole_calls(PAPER, 300) == 11_100
    assert whole_steps(PAPER) == 10_500
    assert cost(PAPER, 300, ObjectiveConfig(steps_per_call=10)) == 11_100 + 1050


def test_a_weaker_pass_takes_fewer_steps() -> None:
    diffusion = DiffusionConfig(sampling_steps=50, window=16, stride=8)
    assert denoiser_calls(diffusion, 0.5, 16) == 25
    assert denoiser_calls(diffusion, 0.5, 17) == 2 * 25
    assert denoiser_calls(diffusion, 0.001, 16) == 1


def test_calls_of_a_program_are_those_of_its_settings() -> None:
    for joint in ({}, {"refresh_interval": 700}, {"warm_up_steps": 0, "steps": 999}):
        config = Config(joint=JointConfig(**joint))
        own = program(config, "inputs")
        work = alone([(own, len(own.operations))])
        assert calls_of(work.answers, 100) == whole_calls(config, 100)
        assert work.steps == whole_steps(config)
