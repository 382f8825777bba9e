"""C: the canonical image that frames show, deformed (DiffPerformer Eq. 5; design and sizes: CoDeF), and the still image behind them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpscale.config.schema import FieldConfig
from dpscale.field.grids import hash_grid
from dpscale.field.mlp import Mlp

MARGIN, SIZE = 0.3, 1.6
"""CoDeF: the canonical image is 1.6 frames wide and high and starts 0.3 frames before the frame's edge."""


class CanonicalImage(nn.Module):
    """Colour at positions of the canonical image, given in the coordinates of a frame: [0, 1]^2 is the frame itself."""

    margin, size = MARGIN, SIZE

    def __init__(self, config: FieldConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.grid = hash_grid(config.canonical_grid, 2, generator)
        fused = config.networks == "fused"
        self.network = Mlp(self.grid.num_features, config.canonical_width, config.canonical_layers, 3, generator, fused)

    def forward(self, positions: Float[Tensor, "S 2"]) -> Float[Tensor, "S 3"]:
        """RGB in 0..1."""
        return torch.sigmoid(self.network(self.grid((positions + self.margin) / self.size)))


class BackgroundImage(CanonicalImage):
    """What lies behind the body (ours): built like a canonical image, but as large as the frame, because nothing moves it."""

    margin, size = 0.0, 1.0
