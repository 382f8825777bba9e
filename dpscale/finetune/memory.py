"""What makes a training step smaller or faster without another result: bf16 arithmetic, and layers computed twice instead of kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn
from torch.utils.checkpoint import checkpoint

RECOMPUTED = (ResnetBlock2D, TemporalConvLayer, Transformer2DModel, TransformerTemporalModel, AnimateDiffTransformer3D)
"""Layers of the video UNets and of AutoencoderKL; none holds another one."""


def autocast(precision: Literal["fp32", "bf16"], device: str) -> torch.autocast:
    """A context in which matrix products and convolutions compute in `precision`; weights, gradients and the optimiser stay fp32."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def recomputed(module: nn.Module, enabled: bool) -> Iterator[None]:
    """Inside, backward computes each layer again from its input instead of keeping what is within it: less memory, about a third more time.

    diffusers' own switch does not know UNet3DConditionModel's blocks (0.42: `_supports_gradient_checkpointing` is False)."""
    layers = [m for m in module.modules() if enabled and isinstance(m, RECOMPUTED)]
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
