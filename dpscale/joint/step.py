"""One field step: samples, loss, gradient, Adam."""

from __future__ import annotations

import torch

from dpscale.config.schema import FieldConfig, JointConfig
from dpscale.data.seeds import derive
from dpscale.field.loss import Losses, draw_samples, ivr_loss
from dpscale.joint.state import JointState
from dpscale.joint.video import VideoTask


def learning_rate(field: FieldConfig, step: int) -> float:
    """Halved at every milestone (CoDeF); a warm-up step (<= 0) has the full rate."""
    return field.lr * 0.5 ** sum(step > milestone for milestone in field.lr_milestones)


def flow_weight(joint: JointConfig, step: int) -> float:
    """lambda of Eq. 6 at `step` (1 .. steps): from `flow_weight` linearly to `flow_weight_to`, times the rise from 0 over the first steps."""
    last = joint.flow_weight if joint.flow_weight_to is None else joint.flow_weight_to
    steady = joint.flow_weight + (last - joint.flow_weight) * (step - 1) / max(1, joint.steps - 1)
    return steady * min(1.0, step / max(1, joint.flow_rise_steps))


def field_step(state: JointState, video: VideoTask, step: int) -> Losses:
    """phi <- phi - lr grad(L_rec + lambda L_flow). A warm-up step (<= 0) fits every frame to I_ref instead, without flow."""
    config = video.config
    warming_up = step <= 0
    targets = state.inputs.reference.expand(len(video.pose), -1, -1, -1) if warming_up else state.targets
    weight = 0.0 if warming_up else flow_weight(config.joint, step)
    human_flow = None if weight == 0 else state.inputs.human_flow
    generator = torch.Generator().manual_seed(derive(config.run.seed, "field step", video.name, step))
    beside = config.field.neighbour_losses
    samples = draw_samples(state.field, targets, human_flow, config.field.samples, config.field.flow_samples, generator, beside.drawn)
    losses = ivr_loss(state.field, samples, weight, beside)
    state.optimizer.zero_grad()
    losses.total.backward()
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(config.field, step)
    state.optimizer.step()
    return losses.detached()
