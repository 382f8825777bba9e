"""When the diffusion model is asked for new targets, and how strongly (DiffPerformer 4.3, Algorithm 1; METHOD 6)."""

from __future__ import annotations

import math

from dpscale.config.schema import JointConfig


def num_refreshes(joint: JointConfig) -> int:
    """Refreshes after the first pass. They are numbered from 1; the first pass is number 0."""
    return math.ceil(joint.steps / joint.refresh_interval)


def refreshes_at(joint: JointConfig, step: int) -> bool:
    """Whether Algorithm 1 refreshes the targets at `step` (1 .. steps).

    The last step always does, for its refresh is the output; where the interval divides the number of steps this is the paper's rule."""
    return step > 0 and (step % joint.refresh_interval == 0 or step == joint.steps)


def step_of(joint: JointConfig, refresh: int) -> int:
    """The step at which a refresh takes place; the first pass counts as step 0."""
    return min(refresh * joint.refresh_interval, joint.steps)


def strength(joint: JointConfig, refresh: int) -> float:
    """Noise strength of a refresh: that of the first pass, then linear from `strength_from` to `strength_to`."""
    if refresh == 0:
        return joint.first_strength
    falling = (refresh - 1) / max(1, num_refreshes(joint) - 1)
    return joint.strength_from + falling * (joint.strength_to - joint.strength_from)
