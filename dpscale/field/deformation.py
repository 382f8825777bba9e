"""D: where each pixel of each frame comes from in the canonical image (DiffPerformer Eq. 4; design and sizes: CoDeF)."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpscale.config.schema import FieldConfig
from dpscale.field.grids import hash_grid

OUTPUT_SCALE = 1 / 5
"""CoDeF divides the network's output by 5, so that displacements start small."""


def mlp(num_inputs: int, width: int, num_layers: int, num_outputs: int, generator: torch.Generator) -> nn.Sequential:
    """`num_layers` hidden layers of `width` with ReLU, then a linear one. Weights: He's uniform; biases zero."""
    sizes = [num_inputs, *[width] * num_layers, num_outputs]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        linear = nn.Linear(fan_in, fan_out)
        nn.init.kaiming_uniform_(linear.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Deformation(nn.Module):
    """Displacement of points (x, y, n / N) in [0, 1]^3 into the canonical image, in parts of width and height."""

    def __init__(self, config: FieldConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.grid = hash_grid(config.deformation_grid, 3, generator)
        self.network = mlp(self.grid.num_features + 3, config.deformation_width, config.deformation_layers, 2, generator)
        # Zero displacement at first (ours): the warm-up then shows I_ref undistorted in every frame.
        nn.init.zeros_(self.network[-1].weight)

    def forward(self, points: Float[Tensor, "S 3"]) -> Float[Tensor, "S 2"]:
        return self.network(torch.cat([self.grid(points), points], dim=1)) * OUTPUT_SCALE
