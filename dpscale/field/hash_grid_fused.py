"""The hash grid in fused kernels: C++ on the CPU, Triton on CUDA. Same numbers as hash_grid.py up to rounding, several times faster.

Its table is [rows, features], where the reference's is [features, rows]: a kernel reads all features of a row at once, and apart they
would cost a cache miss each. `as_table` turns one form into the other.
"""

from __future__ import annotations

from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dpscale.config.schema import HashGridConfig
from dpscale.field import hash_grid_cpu, native
from dpscale.field.hash_grid import HashGrid
from dpscale.field.table import TableShape


class FusedHashGrid(HashGrid):
    """H, as HashGrid: points in [0, 1]^num_dims -> features. The same generator gives the same table."""

    def __init__(self, config: HashGridConfig, num_dims: int, generator: torch.Generator) -> None:
        super().__init__(config, num_dims, generator)
        reference = self.table.detach().t()
        rows = native.with_huge_pages(torch.empty(reference.shape, dtype=getattr(torch, config.table_dtype)))
        self.table = nn.Parameter(rows.copy_(reference))
        self.shape = TableShape.of(self)
        self.deferred: list[tuple[Tensor, Tensor]] | None = None
        """A list: backward notes (points, gradient of the features) here and makes no gradient of the table. Those two say the same in a
        twentieth of the memory; LazyAdam, which sets this, has the kernel scatter them level by level and update each level at once."""

    def forward(self, points: Float[Tensor, "S D"]) -> Float[Tensor, "S LF"]:
        """Features of each point, level after level. Points outside [0, 1] take the value at the border."""
        return _Encode.apply(points, self.table, self)

    @torch.no_grad()
    def lattice(self, x: Float[Tensor, " W"], y: Float[Tensor, " H"], z: float) -> Float[Tensor, "HW LF"]:
        """`forward` at (x[i], y[j], z), row after row, without a gradient; x and y ascend. On the CPU pixels share what they read."""
        if self.table.device.type == "cpu":
            return hash_grid_cpu.lattice(x.contiguous(), y.contiguous(), z, self.table, self.shape)
        return self(lattice_points(x, y, z))


def lattice_points(x: Float[Tensor, " W"], y: Float[Tensor, " H"], z: float) -> Float[Tensor, "HW 3"]:
    """(x[i], y[j], z), row after row."""
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([columns, rows, torch.full_like(rows, z)], dim=-1).flatten(0, 1)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points: Tensor, table: Tensor, grid: FusedHashGrid) -> Tensor:
        ctx.grid = grid
        ctx.save_for_backward(points, table)
        return kernels(points).encode(points, table, grid.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (points, table), grid = ctx.saved_tensors, ctx.grid
        own = kernels(points)
        for_points = own.point_gradient(points, table, gradient, grid.shape) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return for_points, None, None
        if grid.deferred is not None:
            grid.deferred.append((points.detach(), gradient))
            return for_points, None, None
        return for_points, own.table_gradient(points, gradient, grid.shape).to(table.dtype), None


def kernels(points: Tensor) -> ModuleType:
    """The module whose functions work where the points are."""
    if points.device.type == "cpu":
        return hash_grid_cpu
    from dpscale.field import hash_grid_triton  # Triton need not be installed on a machine without CUDA

    return hash_grid_triton


def as_table(stored: Tensor, like: Tensor) -> Tensor:
    """A stored parameter, or a moment of it, in the form of `like`: in tables the kinds of grid differ in which axis counts the rows."""
    return stored if stored.shape == like.shape else stored.t()
