"""Low-rank adapters (LoRA, Hu et al. 2021) on the temporal layers: a layer's weight becomes W + B A, and only A and B train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from dpscale.diffusion.denoiser import PoseDenoiser
from dpscale.finetune.trainable import is_temporal

ADAPTED = (nn.Linear, nn.Conv3d)
"""Attention, feed-forward layers and projections; temporal convolutions. Normalisations and biases stay the base's."""


def adapted_layers(denoiser: PoseDenoiser) -> dict[str, nn.Module]:
    """The layers that take an adapter, by name."""
    return {name: layer for name, layer in denoiser.unet.named_modules(prefix="unet") if isinstance(layer, ADAPTED) and is_temporal(name)}


@contextmanager
def adapted(denoiser: PoseDenoiser, rank: int | None, seed: int) -> Iterator[None]:
    """Inside, the temporal layers have adapters of `rank` (none: nothing happens); afterwards the layers and their flags are as before.

    B starts at zero, so the denoiser computes what it did; A at random, from `seed` alone. peft multiplies B A by
    lora_alpha / r, here 1: the rank may be changed without the learning rate."""
    if rank is None:
        yield
        return
    layers, flags = adapted_layers(denoiser), {p: p.requires_grad for p in denoiser.parameters()}
    try:
        _inject(denoiser, sorted(layers), rank, seed)
        yield
    finally:
        for name, layer in layers.items():
            denoiser.set_submodule(name, layer)
        vars(denoiser).pop("peft_config", None)
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


def _inject(denoiser: PoseDenoiser, names: list[str], rank: int, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=names), denoiser)
