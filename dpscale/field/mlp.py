"""The small networks of the field: an nn.Sequential that runs as one C++ kernel (mlp.cpp) where it can."""

from __future__ import annotations

import ctypes
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dpscale.field import native

_NAMES = {torch.float32: "float", torch.float64: "double"}


class Mlp(nn.Sequential):
    """`num_layers` hidden layers of `width` with ReLU, then a linear one. Weights: He's uniform; biases zero.

    Inputs [S, .] stand side by side. Fused, on the CPU, only the first of them gets a gradient: the rest must not ask for one."""

    def __init__(self, num_inputs: int, width: int, num_layers: int, num_outputs: int, generator: torch.Generator, fused: bool = True) -> None:
        sizes = [num_inputs, *[width] * num_layers, num_outputs]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            linear = nn.Linear(fan_in, fan_out)
            nn.init.kaiming_uniform_(linear.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        super().__init__(*layers[:-1])
        self.fused = fused

    def forward(self, *inputs: Float[Tensor, "S _"]) -> Float[Tensor, "S _"]:
        fits = self.fused and inputs[0].device.type == "cpu" and native.library() is not None
        if fits and not any(part.requires_grad for part in inputs[1:]):
            return _Run.apply(len(inputs), *inputs, *self.parameters())
        return super().forward(torch.cat(inputs, dim=1) if len(inputs) > 1 else inputs[0])


class _Run(torch.autograd.Function):
    """Arguments after the number of inputs: the inputs, then weight and bias of each layer in turn."""

    @staticmethod
    def forward(ctx, num_inputs: int, *tensors: Tensor) -> Tensor:
        tensors = tuple(tensor.contiguous() for tensor in tensors)
        ctx.num_inputs = num_inputs
        ctx.save_for_backward(*tensors)
        out = tensors[0].new_empty(len(tensors[0]), len(tensors[-1]))
        _call("forward", num_inputs, tensors, native.pointer(out))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tensors, count = ctx.saved_tensors, ctx.num_inputs
        first = torch.empty_like(tensors[0]) if ctx.needs_input_grad[1] else None
        sums = [torch.zeros_like(tensor) for tensor in tensors[count:]]
        _call(
            "backward", count, tensors, native.pointer(gradient.contiguous()), _addresses(sums[0::2]), _addresses(sums[1::2]),
            ctypes.c_void_p(None) if first is None else native.pointer(first), ctypes.c_int64(tensors[0].shape[1]),
        )  # fmt: skip
        return None, first, *[None] * (count - 1), *sums


def _call(name: str, num_inputs: int, tensors: tuple[Tensor, ...], *arguments: Any) -> None:
    inputs, weights, biases = tensors[:num_inputs], tensors[num_inputs::2], tensors[num_inputs + 1 :: 2]
    sizes = [weights[0].shape[1], *map(len, weights)]
    assert sum(part.shape[1] for part in inputs) == sizes[0], f"{[part.shape[1] for part in inputs]} columns for {sizes[0]} inputs"
    kernels = native.library()
    assert kernels is not None
    kernels[f"dpscale_mlp_{name}_{_NAMES[inputs[0].dtype]}"](
        ctypes.c_int(num_inputs), _addresses(inputs), _numbers([part.shape[1] for part in inputs]), ctypes.c_int64(len(inputs[0])),
        ctypes.c_int(len(weights)), _numbers(sizes), _addresses(weights), _addresses(biases), *arguments, native.threads(),
    )  # fmt: skip


def _addresses(tensors: Any) -> ctypes.Array[ctypes.c_int64]:
    return _numbers([native.pointer(tensor).value or 0 for tensor in tensors])


def _numbers(values: list[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)
