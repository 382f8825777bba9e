"""Which parameters train, and how the rest is kept exactly as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from dpscale.diffusion.delta import is_factor
from dpscale.diffusion.denoiser import PoseDenoiser

TEMPORAL_BLOCKS = frozenset({"transformer_in", "temp_convs", "temp_attentions", "motion_modules"})
"""The layers that see more than one frame: three kinds in diffusers' UNet3DConditionModel, one in its UNetMotionModel."""
POSE_ENCODER = "pose_encoder"
WIDENED = "unet.conv_in.weight"
"""Input convolution: the latent's channels come first, the widened ones (pose, reference) after them."""


@dataclass(frozen=True)
class TrainablePart:
    """Parameters of `module` that train."""

    module: nn.Module
    parameters: dict[str, nn.Parameter]
    """By the name in `module`, in the module's order."""
    frozen_inputs: dict[str, int] = field(default_factory=dict)
    """Name -> how many leading input channels of that convolution stay as they are."""

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups for an optimiser.

        A partly frozen tensor takes no weight decay: with zero gradient and no decay AdamW does not move it at all."""
        whole = [p for name, p in self.parameters.items() if name not in self.frozen_inputs]
        partial = [self.parameters[name] for name in self.frozen_inputs]
        groups = [{"params": whole, "weight_decay": weight_decay}, {"params": partial, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]


def trainable_denoiser(denoiser: PoseDenoiser, trainable: Literal["temporal", "all"]) -> TrainablePart:
    """`all`: every parameter. `temporal` (METHOD 2): temporal layers, or their adapters where they have any (lora.adapted), pose encoder
    and the widened inputs of conv_in."""
    parameters = dict(denoiser.named_parameters())
    if trainable == "all":
        return TrainablePart(denoiser, parameters)
    inner = is_factor if any(map(is_factor, parameters)) else is_temporal
    parameters = {name: p for name, p in parameters.items() if name == WIDENED or name.startswith(f"{POSE_ENCODER}.") or inner(name)}
    return TrainablePart(denoiser, parameters, {WIDENED: denoiser.latent_channels})


def is_temporal(name: str) -> bool:
    """Whether a layer or tensor of the UNet sees more than one frame."""
    return not TEMPORAL_BLOCKS.isdisjoint(name.split("."))


@contextmanager
def unfrozen(part: TrainablePart) -> Iterator[None]:
    """Only `part` takes gradients inside; afterwards weights and flags are as before, so that a resident base serves the next performer."""
    flags = {p: p.requires_grad for p in part.module.parameters()}
    pristine = {p: p.detach().clone() for p in part.parameters.values()}
    part.module.requires_grad_(False)
    for parameter in part.parameters.values():
        parameter.requires_grad_(True)
    hooks = [part.parameters[name].register_hook(_mask_inputs(count)) for name, count in part.frozen_inputs.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
            parameter.grad = None
            parameter.data = pristine.get(parameter, parameter.data)


def install(part: TrainablePart, state: Mapping[str, Tensor]) -> None:
    """Puts the parameters of an Engine.state() into the module, also where DeepSpeed has taken their storage apart."""
    for name, parameter in part.parameters.items():
        parameter.data = state[f"parameter.{name}"].to(parameter.device, copy=True)


def _mask_inputs(count: int) -> Callable[[Tensor], Tensor]:
    def mask(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient[:, :count] = 0
        return gradient

    return mask
