"""One field step: samples, loss, gradient, Adam."""

from __future__ import annotations

import torch

from dpscale.data.seeds import derive
from dpscale.field.loss import Losses, draw_samples, ivr_loss
from dpscale.joint.plan import flow_weight, learning_rate
from dpscale.joint.state import JointState
from dpscale.joint.video import VideoTask


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
