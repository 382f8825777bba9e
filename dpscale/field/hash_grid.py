"""Multi-resolution hash grid in plain torch: the reference that faster versions are measured against.

Instant-NGP (Mueller et al. 2022, section 3). Names and meaning of the sizes are tiny-cuda-nn's. All levels
lie in one flat table: slicing a [levels, rows, features] table would make autograd allocate a gradient
of the table's full size for every level. Samples are the last axis of every array inside, and each feature
is gathered by itself: both keep torch's inner loops long (four times faster here than sample-major order).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dpscale.config.schema import HashGridConfig

_PRIMES = (1, 2_654_435_761, 805_459_861)
"""Instant-NGP, Eq. 4."""
_INITIAL_RANGE = 1e-4
"""Instant-NGP, section 4: features start uniform in +-1e-4."""


def level_resolutions(config: HashGridConfig) -> list[int]:
    """Cells per axis of each level: N_l = floor(N_min b^l) (Instant-NGP, Eq. 2); a level has N_l + 1 vertices per axis."""
    return [int(config.base_resolution * config.per_level_scale**level) for level in range(config.n_levels)]


def level_rows(config: HashGridConfig, num_dims: int) -> list[int]:
    """Rows of each level in the flat table: one per vertex, or 2^log2_hashmap_size where the vertices are more (hashed)."""
    return [min((n + 1) ** num_dims, 2**config.log2_hashmap_size) for n in level_resolutions(config)]


class HashGrid(nn.Module):
    """H: points in [0, 1]^num_dims (2 or 3) -> n_levels * n_features_per_level multilinearly interpolated features."""

    def __init__(self, config: HashGridConfig, num_dims: int, generator: torch.Generator) -> None:
        super().__init__()
        if num_dims not in (2, 3):
            raise ValueError(f"a hash grid has 2 or 3 dimensions, not {num_dims}")
        resolutions, rows = level_resolutions(config), level_rows(config, num_dims)
        self.num_dims = num_dims
        self.num_features = config.n_levels * config.n_features_per_level
        self.hash_mask = 2**config.log2_hashmap_size - 1
        self.num_dense = sum((n + 1) ** num_dims <= 2**config.log2_hashmap_size for n in resolutions)
        """Resolutions grow with the level, so the first num_dense levels are indexed directly and the rest is hashed."""
        table = torch.empty(config.n_features_per_level, sum(rows))
        self.table = nn.Parameter(table.uniform_(-_INITIAL_RANGE, _INITIAL_RANGE, generator=generator))
        strides = [[self._stride(level, n, axis) for level, n in enumerate(resolutions)] for axis in range(num_dims)]
        offsets = [sum(rows[:level]) for level in range(config.n_levels)]
        self.register_buffer("resolutions", torch.tensor(resolutions, dtype=torch.int32)[:, None], persistent=False)
        self.register_buffer("strides", torch.tensor(strides, dtype=torch.int32)[:, :, None], persistent=False)
        self.register_buffer("offsets", torch.tensor(offsets, dtype=torch.int32)[:, None], persistent=False)

    def _stride(self, level: int, resolution: int, axis: int) -> int:
        # Only the low bits of a hash are kept, so those of the prime suffice: the products then fit 32 bits, or wrap harmlessly.
        return (resolution + 1) ** axis if level < self.num_dense else _PRIMES[axis] & self.hash_mask

    def forward(self, points: Float[Tensor, "S D"]) -> Float[Tensor, "S LF"]:
        """Features of each point, level after level. Points outside [0, 1] take the value at the border."""
        scaled = points.t().clamp(0, 1)[:, None, :] * self.resolutions
        cell = torch.minimum(scaled.detach().int(), self.resolutions - 1)
        fraction = scaled - cell
        rows = self._rows(cell)
        weights = _corners(torch.stack([1 - fraction, fraction]), torch.mul)
        # unbind: the gradients of all features come together in one table, where indexing would make a whole table for each.
        gathered = [feature.index_select(0, rows.flatten()).view(rows.shape) for feature in self.table.unbind(0)]
        return torch.stack([(weights * values).sum(dim=0) for values in gathered], dim=1).flatten(0, 1).t()

    def _rows(self, cell: Int[Tensor, "D L S"]) -> Int[Tensor, "K L S"]:
        """Row in the flat table of each of the K = 2^D corners of a cell, in every level."""
        lower = cell * self.strides
        ends = torch.stack([lower, lower + self.strides])
        dense = _corners(ends[:, :, : self.num_dense], torch.add)
        hashed = _corners(ends[:, :, self.num_dense :], torch.bitwise_xor) & self.hash_mask
        return torch.cat([dense, hashed], dim=1) + self.offsets


def _corners(ends: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """[2, D, L, S], the terms of the lower and upper end on each axis -> [2^D, L, S], the terms combined for every corner."""
    corners = ends[:, 0]
    for axis in range(1, ends.shape[1]):
        corners = combine(corners[:, None], ends[None, :, axis]).flatten(0, 1)
    return corners
