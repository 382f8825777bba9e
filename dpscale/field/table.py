"""What the kernels of a fused hash grid need to know of its table, and of a step of Adam on it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from dpscale.field.hash_grid import HashGrid


@dataclass(frozen=True, eq=False)
class TableShape:
    """Where each level's rows lie in a table [R, F], and which row a vertex has."""

    levels: Int[Tensor, "L 7"]
    """int64 on the CPU: resolution, first row, number of rows, 1 where directly indexed, stride of each axis (a prime's low bits where hashed)."""
    hash_mask: int
    num_rows: int
    features_per_level: int

    @classmethod
    def of(cls, grid: HashGrid) -> TableShape:
        num_rows, features = grid.table.shape
        first = grid.offsets[:, 0].long()
        rows = torch.diff(first, append=torch.tensor([num_rows]))
        dense = (torch.arange(len(first)) < grid.num_dense).long()
        strides = torch.zeros(len(first), 3, dtype=torch.long)
        strides[:, : grid.num_dims] = grid.strides[:, :, 0].t()
        levels = torch.stack([grid.resolutions[:, 0].long(), first, rows, dense], dim=1)
        return cls(torch.cat([levels, strides], dim=1).contiguous(), grid.hash_mask, num_rows, features)

    @property
    def num_features(self) -> int:
        return len(self.levels) * self.features_per_level


@dataclass(frozen=True)
class AdamStep:
    """The numbers of one step (Kingma and Ba 2015, Algorithm 1): value -= step_size * mean / (sqrt(square) / root_correction + eps)."""

    beta1: float
    beta2: float
    eps: float
    step_size: float
    """lr / (1 - beta1^t): t counts all steps, also those that left a row alone."""
    root_correction: float
    """sqrt(1 - beta2^t)."""
    step: int
    """t; stochastic rounding draws its bits from it."""

    @classmethod
    def at(cls, step: int, lr: float, betas: tuple[float, float], eps: float) -> AdamStep:
        beta1, beta2 = betas
        return cls(beta1, beta2, eps, lr / (1 - beta1**step), math.sqrt(1 - beta2**step), step)
