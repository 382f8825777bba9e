"""The hash grid's kernels for CUDA, in Triton; the same functions as hash_grid_cpu.py, and the same mathematics as hash_grid.py.

A program works on one level of a block of samples. Gradients of rows are added atomically: their order, and with it the last bit of a
float32 sum, may differ from run to run. On a machine without CUDA the tests run this code in Triton's interpreter.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from dpscale.field.table import AdamStep, TableShape

_SAMPLES, _ELEMENTS = 128, 1024
"""What one program works on."""


@dataclass
class _OnDevice:
    levels: Tensor
    gradient: Tensor | None = None
    """float32 [R, F], zero between calls: `update` clears what it used."""


_device_parts: WeakKeyDictionary[TableShape, _OnDevice] = WeakKeyDictionary()


def _on_device(shape: TableShape, device: torch.device) -> _OnDevice:
    part = _device_parts.get(shape)
    if part is None or part.levels.device != device:
        part = _device_parts[shape] = _OnDevice(shape.levels.to(device))
    return part


# ------------------------------------------------------------------------------------------------ functions


def encode(points: Float[Tensor, "S D"], table: Float[Tensor, "R F"], shape: TableShape) -> Float[Tensor, "S LF"]:
    """Features of each point, level after level."""
    features = points.new_empty(len(points), shape.num_features)
    grid = (triton.cdiv(len(points), _SAMPLES), len(shape.levels))
    if len(points):
        _encode[grid](points.contiguous(), table, features, *_arguments(points, shape))
    return features


def point_gradient(
    points: Float[Tensor, "S D"], table: Float[Tensor, "R F"], gradient: Float[Tensor, "S LF"], shape: TableShape
) -> Float[Tensor, "S D"]:
    """Of sum(features * gradient) with respect to the points; zero on an axis on which a point does not lie inside (0, 1)."""
    result = torch.empty_like(points, memory_format=torch.contiguous_format)
    grid = (triton.cdiv(len(points), _SAMPLES), points.shape[1])
    if len(points):
        _point_gradient[grid](points.contiguous(), table, gradient.contiguous(), result, len(shape.levels), *_arguments(points, shape))
    return result


def table_gradient(points: Float[Tensor, "S D"], gradient: Float[Tensor, "S LF"], shape: TableShape) -> Float[Tensor, "R F"]:
    """Of sum(features * gradient) with respect to the whole table."""
    return _scatter(points, gradient, points.new_zeros(shape.num_rows, shape.features_per_level), shape)


def update(
    points: Float[Tensor, "S D"],
    gradient: Float[Tensor, "S LF"],
    table: Float[Tensor, "R F"],
    mean: Float[Tensor, "R F"],
    square: Float[Tensor, "R F"],
    shape: TableShape,
    adam: AdamStep,
) -> None:
    """One lazy Adam step of table and moments. The table's gradient lies in a buffer that is kept and cleared where it was used."""
    part = _on_device(shape, points.device)
    if part.gradient is None:
        part.gradient = points.new_zeros(shape.num_rows, shape.features_per_level)
    _scatter(points, gradient, part.gradient, shape)
    adam_update(table, mean, square, part.gradient, adam)


def adam_update(
    table: Float[Tensor, "R F"], mean: Float[Tensor, "R F"], square: Float[Tensor, "R F"], gradient: Float[Tensor, "R F"], adam: AdamStep
) -> None:
    """Elements whose gradient is not zero take an Adam step, and their gradient becomes zero."""
    grid = (triton.cdiv(table.numel(), _ELEMENTS),)
    _adam[grid](
        table, mean, square, gradient, table.numel(), 1 - adam.beta1, adam.beta2, 1 - adam.beta2, adam.eps,
        adam.step_size, adam.root_correction, adam.step, ROUND=table.dtype == torch.bfloat16, BLOCK=_ELEMENTS,
    )  # fmt: skip


def _scatter(points: Tensor, gradient: Tensor, into: Tensor, shape: TableShape) -> Tensor:
    grid = (triton.cdiv(len(points), _SAMPLES), len(shape.levels))
    if len(points):
        _table_gradient[grid](points.contiguous(), gradient.contiguous(), into, *_arguments(points, shape))
    return into


def _arguments(points: Tensor, shape: TableShape) -> tuple[Tensor | int, ...]:
    """From `levels` on; the order of every kernel below."""
    levels = _on_device(shape, points.device).levels
    return levels, len(points), shape.hash_mask, shape.num_features, points.shape[1], shape.features_per_level, _SAMPLES


# -------------------------------------------------------------------------------------------------- kernels


@triton.jit
def _axis(points, sample, valid, axis, resolution, D: tl.constexpr):
    """Lower cell index and fraction of the coordinate on one axis, and whether it lies inside (0, 1)."""
    x = tl.load(points + sample * D + axis, mask=valid, other=0.0)
    low = tl.where(x < 0, x * 0, x)
    scaled = tl.where(low > 1, low * 0 + 1, low) * resolution.to(x.dtype)
    cell = tl.minimum(tl.maximum(scaled.to(tl.int32), 0), resolution.to(tl.int32) - 1)
    return cell, scaled - cell.to(x.dtype), (x > 0) & (x < 1)


@triton.jit
def _corner(points, sample, valid, levels, level, mask, k, skip, D: tl.constexpr):
    """Row of corner k (bit a: the upper end on axis a) in the table, and the product of its weights on all axes but `skip`."""
    own = levels + level * 7
    resolution, first_row, dense = tl.load(own), tl.load(own + 1), tl.load(own + 3)
    total = sample * 0
    hashed = sample * 0
    weight = tl.load(points + sample * D, mask=valid, other=0.0) * 0 + 1
    for axis in tl.static_range(D):
        cell, fraction, _ = _axis(points, sample, valid, axis, resolution, D)
        upper = (k >> axis) & 1
        term = (cell + upper) * tl.load(own + 4 + axis).to(tl.int32)
        total += term
        hashed = hashed ^ term
        part = tl.where(upper == 1, fraction, 1 - fraction)
        weight *= tl.where(axis == skip, part * 0 + 1, part)
    row = tl.where(dense == 1, total, hashed & mask)
    return first_row + row, weight


@triton.jit
def _encode(points, table, features, levels, samples, mask, LF, D: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr):
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    level = tl.program_id(1)
    valid = sample < samples
    for f in tl.static_range(F):
        total = tl.load(points + sample * D, mask=valid, other=0.0) * 0
        for k in tl.static_range(1 << D):
            row, weight = _corner(points, sample, valid, levels, level, mask, k, D, D)
            total += weight * tl.load(table + row * F + f, mask=valid, other=0.0).to(weight.dtype)
        tl.store(features + sample.to(tl.int64) * LF + level * F + f, total, mask=valid)


@triton.jit
def _point_gradient(points, table, gradient, result, num_levels, levels, samples, mask, LF, D: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr):
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    axis = tl.program_id(1)
    valid = sample < samples
    total = tl.load(points + sample * D, mask=valid, other=0.0) * 0
    for level in range(num_levels):
        resolution = tl.load(levels + level * 7)
        for k in tl.static_range(1 << D):
            row, others = _corner(points, sample, valid, levels, level, mask, k, axis, D)
            sign = (2 * ((k >> axis) & 1) - 1) * resolution
            for f in tl.static_range(F):
                value = tl.load(table + row * F + f, mask=valid, other=0.0).to(others.dtype)
                slope = tl.load(gradient + sample.to(tl.int64) * LF + level * F + f, mask=valid, other=0.0)
                total += sign.to(others.dtype) * others * value * slope
    _, _, inside = _axis(points, sample, valid, axis, tl.load(levels), D)
    tl.store(result + sample * D + axis, tl.where(inside, total, total * 0), mask=valid)


@triton.jit
def _table_gradient(points, gradient, into, levels, samples, mask, LF, D: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr):
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    level = tl.program_id(1)
    valid = sample < samples
    for k in tl.static_range(1 << D):
        row, weight = _corner(points, sample, valid, levels, level, mask, k, D, D)
        for f in tl.static_range(F):
            slope = tl.load(gradient + sample.to(tl.int64) * LF + level * F + f, mask=valid, other=0.0)
            tl.atomic_add(into + row * F + f, weight * slope, mask=valid)


@triton.jit(do_not_specialize=["step"])
def _adam(table, mean, square, gradient, size, rest1, beta2, rest2, eps, step_size, root_correction, step, ROUND: tl.constexpr, BLOCK: tl.constexpr):
    element = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    g = tl.load(gradient + element, mask=element < size, other=0.0)
    used = g != 0
    m = tl.load(mean + element, mask=used, other=0.0)
    m += (g - m) * rest1
    v = beta2 * tl.load(square + element, mask=used, other=0.0) + rest2 * g * g
    value = tl.load(table + element, mask=used, other=0.0).to(m.dtype) - step_size * m / (tl.sqrt(v) / root_correction + eps)
    if ROUND:  # stochastically, with the bits of adam.stochastically_rounded
        noise = (element * 0x9E3779B1 + step.to(tl.int64) * 0x85EBCA77) & 0xFFFFFFFF
        noise = ((noise ^ (noise >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
        noise = ((noise ^ (noise >> 15)) * 0x846CA68B) & 0xFFFFFFFF
        noise = (noise ^ (noise >> 16)) & 0xFFFF
        bits = ((value.to(tl.int32, bitcast=True).to(tl.int64) + noise) >> 16) << 16
        value = bits.to(tl.int32).to(tl.float32, bitcast=True)
    tl.store(table + element, value.to(table.dtype.element_ty), mask=used)
    tl.store(mean + element, m, mask=used)
    tl.store(square + element, v, mask=used)
    tl.store(gradient + element, g * 0, mask=used)
