"""What settings cost, known before they are tried: denoiser calls and field steps."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from dpscale.config.schema import Config, DiffusionConfig, ObjectiveConfig
from dpscale.diffusion.refine import denoising_steps
from dpscale.diffusion.windows import windows
from dpscale.joint import plan
from dpscale.search.program import Answer


def denoiser_calls(diffusion: DiffusionConfig, strength: float, num_frames: int) -> int:
    """Windows times steps of one refresh: the UNet's work in windows of `diffusion.window` frames, guidance not counted."""
    return len(windows(num_frames, diffusion.window, diffusion.stride)) * denoising_steps(diffusion.sampling_steps, strength)


def whole_calls(config: Config, num_frames: int) -> int:
    """Denoiser calls of a whole run: the first pass and every refresh."""
    joint = config.joint
    numbers = range(plan.num_refreshes(joint) + 1)
    return sum(denoiser_calls(config.diffusion, plan.strength(joint, number), num_frames) for number in numbers)


def whole_steps(config: Config) -> int:
    """Field steps of a whole run, the warm-up included."""
    return config.joint.warm_up_steps + config.joint.steps if config.joint.has_field else 0


def cost(config: Config, num_frames: int, objective: ObjectiveConfig) -> float:
    """Of a whole run, in denoiser calls: those that it makes, and its field steps at their worth."""
    return whole_calls(config, num_frames) + whole_steps(config) / objective.steps_per_call


def calls_of(answers: Iterable[Answer], num_frames: int) -> int:
    """Denoiser calls of some refreshes."""
    return sum(denoiser_calls(_diffusion(answer.diffusion), answer.strength, num_frames) for answer in answers)


@cache
def _diffusion(text: str) -> DiffusionConfig:
    return DiffusionConfig.model_validate_json(text)
