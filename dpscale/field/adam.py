"""Adam that leaves alone what a step did not use.

tiny-cuda-nn's rule (Mueller et al. 2022, section 4): an element of a hash table whose gradient is exactly zero keeps its value and its
moments. A step on S samples then touches the rows around S points and not the whole table. The networks' weights follow torch's Adam.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpscale.config.schema import FieldConfig
from dpscale.field import native
from dpscale.field.hash_grid import HashGrid
from dpscale.field.hash_grid_fused import FusedHashGrid, kernels
from dpscale.field.table import AdamStep

BETAS, EPS = (0.9, 0.99), 1e-15
"""Instant-NGP, section 4: gradients of rarely hit rows are tiny, a larger epsilon would drown them."""


def optimizer_of(module: nn.Module, config: FieldConfig) -> torch.optim.Adam:
    """Adam on all of phi; lazy on the tables, unless the settings ask for torch's own."""
    if config.adam == "lazy":
        return LazyAdam(module, config.lr, BETAS, EPS)
    return torch.optim.Adam(module.parameters(), lr=config.lr, betas=BETAS, eps=EPS, fused=True)


class LazyAdam(torch.optim.Adam):
    """torch's fused Adam on a module's parameters, lazy on the tables of its hash grids. Bias correction counts all steps.

    A fused grid's table gets no `.grad`: its gradient stays deferred until `step`, and goes with `zero_grad` like any other."""

    def __init__(self, module: nn.Module, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(module.parameters(), lr=lr, betas=betas, eps=eps, fused=True)
        self._grids = [part for part in module.modules() if isinstance(part, HashGrid)]
        for grid in self._grids:
            if isinstance(grid, FusedHashGrid):
                grid.deferred = []

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for grid in self._grids:
            if isinstance(grid, FusedHashGrid):
                grid.deferred = []

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        assert closure is None, "one evaluation a step"
        hidden = [(grid.table, self._step_table(grid)) for grid in self._grids]
        super().step()
        for table, gradient in hidden:
            table.grad = gradient

    def _step_table(self, grid: HashGrid) -> Tensor | None:
        """Updates one table; takes its gradient away, so that torch's Adam passes it over, and returns it."""
        gradient, grid.table.grad = grid.table.grad, None
        deferred = grid.deferred if isinstance(grid, FusedHashGrid) else None
        if gradient is None and not deferred:
            return None
        group = self.param_groups[0]
        state = self._table_state(grid.table)
        state["step"] += 1
        adam = AdamStep.at(int(state["step"]), group["lr"], group["betas"], group["eps"])
        if gradient is not None:
            lazy_update(grid.table, state["exp_avg"], state["exp_avg_sq"], gradient, adam)
        if deferred:
            points, features = (torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*deferred, strict=True))
            kernels(points).update(points, features, grid.table, state["exp_avg"], state["exp_avg_sq"], grid.shape, adam)
        return gradient

    def _table_state(self, table: nn.Parameter) -> dict[str, Tensor]:
        state = self.state[table]
        if not state:
            moments = {name: new_moment(table) for name in ("exp_avg", "exp_avg_sq")}
            state |= {"step": torch.zeros(()), **moments}  # on the CPU: it is read in every step
        return state


def new_moment(parameter: Tensor) -> Tensor:
    """Zero, in at least float32: the second moment of a rarely hit row is far below what bfloat16 adds up."""
    dtype = torch.float32 if parameter.dtype == torch.bfloat16 else parameter.dtype
    return native.with_huge_pages(torch.empty_like(parameter, dtype=dtype)).zero_()


def lazy_update(table: Tensor, mean: Tensor, square: Tensor, gradient: Tensor, adam: AdamStep) -> None:
    """The rule in plain torch, in place: the twin of the kernels, and what tables with an ordinary gradient get."""
    used, gradient = gradient != 0, gradient.to(mean.dtype)
    new_mean = mean.lerp(gradient, 1 - adam.beta1)
    new_square = adam.beta2 * square + (1 - adam.beta2) * gradient.square()
    moved = table.to(mean.dtype) - adam.step_size * new_mean / (new_square.sqrt() / adam.root_correction + adam.eps)
    rounded = stochastically_rounded(moved, adam.step) if table.dtype == torch.bfloat16 else moved
    for old, new in ((table, rounded), (mean, new_mean), (square, new_square)):
        old.copy_(torch.where(used, new, old))


def stochastically_rounded(values: Float[Tensor, "*any"], step: int) -> Tensor:
    """float32 -> bfloat16, up or down so that the mean over many steps is the value: near an optimum an update is smaller than half the
    spacing of bfloat16 and would otherwise be lost. The random bits are a hash of element number and step: repeatable, and nothing to save."""
    low = 0xFFFFFFFF
    noise = (torch.arange(values.numel(), device=values.device) * 0x9E3779B1 + step * 0x85EBCA77) & low
    noise = ((noise ^ (noise >> 16)) * 0x7FEB352D) & low
    noise = ((noise ^ (noise >> 15)) * 0x846CA68B) & low
    noise = (noise ^ (noise >> 16)) & 0xFFFF
    bits = (values.contiguous().view(torch.int32).to(torch.int64).flatten() + noise) >> 16 << 16
    return bits.to(torch.int32).view(torch.float32).view(values.shape).to(torch.bfloat16)
