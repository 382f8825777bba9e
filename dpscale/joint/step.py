"""One field step: samples, loss, gradient, Adam."""

from __future__ import annotations

import torch

from dpscale.config.schema import FieldConfig
from dpscale.data.seeds import derive
from dpscale.field.loss import Losses, draw_samples, ivr_loss
from dpscale.joint.state import JointState
from dpscale.joint.video import VideoTask


def learning_rate(field: FieldConfig, step: int) -> float:
    """Halved at every milestone (CoDeF); a warm-up step (<= 0) has the full rate."""
    return field.lr * 0.5 ** sum(step > milestone for milestone in field.lr_milestones)


def field_step(state: JointState, video: VideoTask, step: int) -> Losses:
    """phi <- phi - lr grad(L_rec + lambda L_flow). A warm-up step (<= 0) fits every frame to I_ref instead, without flow."""
    config = video.config
    warming_up = step <= 0
    targets = state.inputs.reference.expand(len(video.pose), -1, -1, -1) if warming_up else state.targets
    human_flow = None if warming_up or config.joint.flow_weight == 0 else state.inputs.human_flow
    generator = torch.Generator().manual_seed(derive(config.run.seed, "field step", video.name, step))
    samples = draw_samples(state.field, targets, human_flow, config.field.samples, config.field.flow_samples, generator)
    losses = ivr_loss(state.field, samples, config.joint.flow_weight)
    state.optimizer.zero_grad()
    losses.total.backward()
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(config.field, step)
    state.optimizer.step()
    return losses.detached()
