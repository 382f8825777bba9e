"""The hash grid's C++ kernels (hash_grid.cpp) as functions of tensors; hash_grid_triton.py has the same functions for CUDA."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dpscale.field.native import library, pointer, threads
from dpscale.field.table import AdamStep, TableShape

_NAMES = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "bfloat16"}


def encode(points: Float[Tensor, "S D"], table: Float[Tensor, "R F"], shape: TableShape) -> Float[Tensor, "S LF"]:
    """Features of each point, level after level."""
    points = points.contiguous()
    features = points.new_empty(len(points), shape.num_features)
    _call("encode", table.dtype, *_points(points), pointer(table), *_shape(shape), pointer(features), ctypes.c_int64(shape.num_features))
    return features


def lattice(x: Float[Tensor, " W"], y: Float[Tensor, " H"], z: float, table: Float[Tensor, "R F"], shape: TableShape) -> Float[Tensor, "HW LF"]:
    """`encode` at every (x, y, z), x fastest; x and y ascend. Every vertex between the pixels is read once."""
    features = x.new_empty(len(y) * len(x), shape.num_features)
    _call(
        "lattice", table.dtype, pointer(x), ctypes.c_int(len(x)), pointer(y), ctypes.c_int(len(y)), ctypes.c_double(z), pointer(table),
        *_shape(shape), pointer(features),
    )  # fmt: skip
    return features


def point_gradient(
    points: Float[Tensor, "S D"], table: Float[Tensor, "R F"], gradient: Float[Tensor, "S LF"], shape: TableShape
) -> Float[Tensor, "S D"]:
    """Of sum(features * gradient) with respect to the points; zero on an axis on which a point does not lie inside (0, 1)."""
    points, gradient = points.contiguous(), gradient.contiguous()
    result = torch.empty_like(points)
    _call("point_gradient", table.dtype, *_points(points), pointer(table), *_shape(shape), *_gradient(gradient), pointer(result))
    return result


def table_gradient(points: Float[Tensor, "S D"], gradient: Float[Tensor, "S LF"], shape: TableShape) -> Float[Tensor, "R F"]:
    """Of sum(features * gradient) with respect to the whole table."""
    points, gradient = points.contiguous(), gradient.contiguous()
    result = points.new_zeros(shape.num_rows, shape.features_per_level)
    _call("table_gradient", points.dtype, *_points(points), *_shape(shape), *_gradient(gradient), pointer(result))
    return result


def update(
    points: Float[Tensor, "S D"],
    gradient: Float[Tensor, "S LF"],
    table: Float[Tensor, "R F"],
    mean: Float[Tensor, "R F"],
    square: Float[Tensor, "R F"],
    shape: TableShape,
    adam: AdamStep,
) -> None:
    """One lazy Adam step of table and moments with the table's gradient, which exists one level at a time only."""
    points, gradient = points.contiguous(), gradient.contiguous()
    settings = [ctypes.c_double(x) for x in (adam.beta1, adam.beta2, adam.eps, adam.step_size, adam.root_correction)]
    _call(
        "update", table.dtype, *_points(points), pointer(table), pointer(mean), pointer(square), *_shape(shape), *_gradient(gradient), *settings,
        ctypes.c_uint32(adam.step),
    )  # fmt: skip


def _call(name: str, dtype: torch.dtype, *arguments: Any) -> None:
    kernels = library()
    assert kernels is not None, "without the library a grid is a HashGrid"
    kernels[f"dpscale_{name}_{_NAMES[dtype]}"](*arguments, threads())


def _points(points: Tensor) -> tuple[Any, ...]:
    return pointer(points), ctypes.c_int64(len(points)), ctypes.c_int(points.shape[1])


def _gradient(gradient: Tensor) -> tuple[Any, ...]:
    return pointer(gradient), ctypes.c_int64(gradient.shape[1])


def _shape(shape: TableShape) -> tuple[Any, ...]:
    return pointer(shape.levels), ctypes.c_int(len(shape.levels)), ctypes.c_uint32(shape.hash_mask), ctypes.c_int(shape.features_per_level)
