"""The training loss, Eq. 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from jaxtyping import Bool, Float
from torch import Tensor

from dpscale.diffusion.conditions import Conditions


def diffusion_loss(
    model: Callable[[Tensor, Tensor, Conditions | None], Tensor],
    noise_schedule: DDIMScheduler,
    latents: Float[Tensor, "B C F h w"],
    conditions: Conditions | None,
    generator: torch.Generator,
    weight: Float[Tensor, "B 1 F h w"] | None = None,
    norm: Literal["l2", "l1"] = "l2",
) -> Float[Tensor, ""]:
    """Eq. 1: || eps - eps_theta(z_t, c, t) ||^2, mean over elements; t uniform, one a clip. `model` is a PoseDenoiser.

    Where the schedule's `prediction_type` is `sample` or `v_prediction`, the target is z_0 or v instead of eps (ours, for
    `tiny`). `weight` weighs elements (ours). `norm` l1 (ours, for `tiny`) asks for the median instead of the mean: what the references
    already show right is left alone, to the last bit of noise, and edges stay edges."""
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    timestep = torch.randint(noise_schedule.config.num_train_timesteps, (len(latents),), generator=generator).to(latents.device)
    noisy = noise_schedule.add_noise(latents, noise, timestep)
    target = {
        "epsilon": lambda: noise,
        "sample": lambda: latents,
        "v_prediction": lambda: noise_schedule.get_velocity(latents, noise, timestep),
    }[noise_schedule.config.prediction_type]()
    error = model(noisy, timestep, conditions) - target
    error = error.abs() if norm == "l1" else error.square()
    return error.mean() if weight is None else (error * weight).mean() / weight.mean()


def body_weights(body: Bool[Tensor, "B F H W"], size: tuple[int, int], extra: float) -> Float[Tensor, "B 1 F h w"]:
    """Weights of latent cells (ours): 1, and `extra` more where a cell holds some of the body, which is a tenth of the picture and
    all of its movement."""
    return 1 + extra * F.adaptive_max_pool2d(body.float(), size)[:, None]
