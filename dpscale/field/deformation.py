"""D: where each pixel of each frame comes from in each canonical image (DiffPerformer Eq. 4; design and sizes: CoDeF)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpscale.config.schema import FieldConfig
from dpscale.field.grids import hash_grid
from dpscale.field.hash_grid_fused import FusedHashGrid, lattice_points
from dpscale.field.mlp import Mlp

OUTPUT_SCALE = 1 / 5
"""CoDeF divides the network's output by 5, so that displacements start small."""


class Deformation(nn.Module):
    """Displacements of points (x, y, n / N) in [0, 1]^3 into each of the K canonical images, in parts of width and height.

    One network gives all K of them (ours): what they share is learnt once, and one more image costs two more outputs."""

    def __init__(self, config: FieldConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.grid = hash_grid(config.deformation_grid, 3, generator)
        num_outputs, fused = 2 * config.canonicals.count, config.networks == "fused"
        self.network = Mlp(self.grid.num_features + 3, config.deformation_width, config.deformation_layers, num_outputs, generator, fused)
        # Zero displacement at first (ours): the warm-up then shows I_ref undistorted in every frame.
        nn.init.zeros_(self.network[-1].weight)

    def forward(self, points: Float[Tensor, "S 3"]) -> Float[Tensor, "S K 2"]:
        return (self.network(self.grid(points), points) * OUTPUT_SCALE).unflatten(1, (-1, 2))

    @torch.no_grad()
    def lattice(self, x: Float[Tensor, " W"], y: Float[Tensor, " H"], frame: float) -> Float[Tensor, "HW K 2"]:
        """`forward` at (x[i], y[j], frame), row after row: what rendering asks for. `frame` is n / N."""
        points = lattice_points(x, y, frame)
        features = self.grid.lattice(x, y, frame) if isinstance(self.grid, FusedHashGrid) else self.grid(points)
        return (self.network(features, points) * OUTPUT_SCALE).unflatten(1, (-1, 2))
