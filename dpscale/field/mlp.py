"""The small networks of the field: an nn.Sequential that runs as one C++ kernel (mlp.cpp) where it can."""

from __future__ import annotations

import ctypes
from contextlib import suppress
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
            return _Run.apply(torch.is_grad_enabled(), len(inputs), *inputs, *self.parameters())
        return super().forward(torch.cat(inputs, dim=1) if len(inputs) > 1 else inputs[0])


class _Run(torch.autograd.Function):
    """Arguments: whether a backward may follow, the number of inputs, the inputs, then weight and bias of each layer in turn."""

    @staticmethod
    def forward(ctx, keep: bool, num_inputs: int, *tensors: Tensor) -> Tensor:
        tensors = tuple(tensor.contiguous() for tensor in tensors)
        out, ctx.kept = _forward(num_inputs, tensors, keep)
        ctx.num_inputs = num_inputs
        ctx.save_for_backward(*tensors)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tensors, count, gradient = ctx.saved_tensors, ctx.num_inputs, gradient.contiguous()
        kept = ctx.kept if ctx.kept is not None else _forward(count, tensors, keep=True)[1]  # of a retained graph: others use it since
        first = torch.empty_like(tensors[0]) if ctx.needs_input_grad[2] else None
        sums = [torch.zeros_like(tensor) for tensor in tensors[count:]]
        _kernel("backward", gradient)(
            ctypes.c_int64(len(gradient)), *_network(tensors[count:]), native.pointer(kept), native.pointer(gradient), _addresses(sums[0::2]),
            _addresses(sums[1::2]), _pointer(first), ctypes.c_int64(tensors[0].shape[1]), native.threads(),
        )  # fmt: skip
        ctx.kept = None
        _spare.append(kept)
        return None, None, first, *[None] * (count - 1), *sums


_spare: list[Tensor] = []
"""Memory for activations that is not in use. Fresh memory in each step would cost the system as much as it saves us; backward gives it back in
the opposite order of forward, so the one on top is of the right size."""


def _forward(num_inputs: int, tensors: tuple[Tensor, ...], keep: bool) -> tuple[Tensor, Tensor | None]:
    """The network's output and, with `keep`, the memory with what enters each of its layers."""
    inputs, parameters = tensors[:num_inputs], tensors[num_inputs:]
    out = inputs[0].new_empty(len(inputs[0]), len(parameters[-1]))
    widths = [part.shape[1] for part in inputs]
    assert sum(widths) == parameters[0].shape[1], f"{widths} columns for {parameters[0].shape[1]} inputs"
    kept = _memory(parameters, len(out)) if keep else None
    _kernel("forward", out)(
        ctypes.c_int(num_inputs), _addresses(inputs), _numbers(widths), ctypes.c_int64(len(out)), *_network(parameters), native.pointer(out),
        _pointer(kept), native.threads(),
    )  # fmt: skip
    return out, kept


def _memory(parameters: tuple[Tensor, ...], samples: int) -> Tensor:
    count, sizes, _, _ = _network(parameters)
    size = _kernel("kept_size", parameters[0])(ctypes.c_int64(samples), count, sizes)
    with suppress(IndexError):
        memory = _spare.pop()
        if memory.dtype == parameters[0].dtype and len(memory) >= size:
            return memory
    return native.with_huge_pages(parameters[0].new_empty(size))


def _kernel(name: str, like: Tensor) -> Any:
    kernels = native.library()
    assert kernels is not None
    kernel = kernels[f"dpscale_mlp_{name}_{_NAMES[like.dtype]}"]
    kernel.restype = ctypes.c_int64 if name == "kept_size" else None
    return kernel


def _network(parameters: tuple[Tensor, ...]) -> tuple[Any, ...]:
    weights, biases = parameters[0::2], parameters[1::2]
    return ctypes.c_int(len(weights)), _numbers([weights[0].shape[1], *map(len, weights)]), _addresses(weights), _addresses(biases)


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None) if tensor is None else native.pointer(tensor)


def _addresses(tensors: Any) -> ctypes.Array[ctypes.c_int64]:
    return _numbers([native.pointer(tensor).value or 0 for tensor in tensors])


def _numbers(values: list[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)
