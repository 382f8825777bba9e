"""What follows from the settings alone: when the diffusion model is asked for new targets, and how strongly; the rates and weights of a step
(DiffPerformer 4.3, Algorithm 1; METHOD 6)."""

from __future__ import annotations

import math

from dpscale.config.schema import FieldConfig, JointConfig


def num_refreshes(joint: JointConfig) -> int:
    """Refreshes after the first pass. They are numbered from 1; the first pass is number 0."""
    return 0 if joint.method == "none" else math.ceil(joint.steps / joint.refresh_interval)


def refreshes_at(joint: JointConfig, step: int) -> bool:
    """Whether Algorithm 1 refreshes the targets at `step` (1 .. steps).

    The last step always does, for its refresh is the output; where the interval divides the number of steps this is the paper's rule."""
    return step > 0 and (step % joint.refresh_interval == 0 or step == joint.steps)


def step_of(joint: JointConfig, refresh: int) -> int:
    """The step at which a refresh takes place; the first pass counts as step 0."""
    return min(refresh * joint.refresh_interval, joint.steps)


def strength(joint: JointConfig, refresh: int, last: bool = False) -> float:
    """Noise strength of a refresh: that of the first pass, then linear from `strength_from` to `strength_to` as they are in force at its step;
    of one that is `last` before its time, `strength_to`. The method without optimisation starts from noise."""
    if joint.method == "none":
        return 1.0
    if refresh == 0:
        return joint.first_strength
    joint = joint.at(step_of(joint, refresh))
    if last:
        return joint.strength_to
    falling = (refresh - 1) / max(1, num_refreshes(joint) - 1)
    return joint.strength_from + falling * (joint.strength_to - joint.strength_from)


def needed_by(joint: JointConfig, refresh: int, asked_at: int) -> int:
    """The step after which the targets of a refresh come into force: `refresh_overlap` steps after the request, but at once where there are
    no targets yet, and before the next request at the latest."""
    if refresh == 0:
        return asked_at
    return min(asked_at + joint.refresh_overlap, max(asked_at, step_of(joint, refresh + 1) - 1))


def learning_rate(field: FieldConfig, step: int) -> float:
    """Halved at every milestone (CoDeF); a warm-up step (<= 0) has the full rate."""
    return field.lr * 0.5 ** sum(step > milestone for milestone in field.lr_milestones)


def flow_weight(joint: JointConfig, step: int) -> float:
    """lambda of Eq. 6 at `step` (1 .. steps): from `flow_weight` linearly to `flow_weight_to` as they are in force there, times the rise from 0
    over the first steps."""
    joint = joint.at(step)
    last = joint.flow_weight if joint.flow_weight_to is None else joint.flow_weight_to
    steady = joint.flow_weight + (last - joint.flow_weight) * (step - 1) / max(1, joint.steps - 1)
    return steady * min(1.0, step / max(1, joint.flow_rise_steps))
