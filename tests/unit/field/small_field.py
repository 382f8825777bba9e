"""The smallest field, plain and with every layer."""

from __future__ import annotations

import numpy as np
import torch

from dpscale.config.field import BackgroundConfig, CanonicalsConfig
from dpscale.config.schema import FieldConfig, HashGridConfig
from dpscale.field.layers import Layers
from dpscale.field.video_field import VideoField

GRID = HashGridConfig(n_levels=3, n_features_per_level=2, log2_hashmap_size=9, base_resolution=4, per_level_scale=1.6)
SMALL = FieldConfig(
    deformation_grid=GRID, canonical_grid=GRID, deformation_layers=2, deformation_width=8, canonical_layers=1, canonical_width=8,
    lr=1e-2, lr_milestones=(4, 6), samples=32, flow_samples=16,
)  # fmt: skip
LAYERED = SMALL.model_copy(update={"canonicals": CanonicalsConfig(count=2), "background": BackgroundConfig(layer=True)})
"""Two canonical images over a background."""


def small_field(num_frames: int = 3, height: int = 8, width: int = 12) -> VideoField:
    return VideoField(SMALL, num_frames, height, width, torch.Generator().manual_seed(0))


def small_layers(num_frames: int = 3, height: int = 8, width: int = 12) -> Layers:
    """Frame 0 is of the first image, frame 1 of both, all others of the second. The left third is background, a soft column follows."""
    weights = np.tile([0.0, 1.0], (num_frames, 1))
    weights[:2] = [[1.0, 0.0], [0.3, 0.7]]
    body = np.full((num_frames, height, width), 255, np.uint8)
    body[:, :, : width // 3], body[:, :, width // 3] = 0, 102
    return Layers(weights, body)


def layered_field(num_frames: int = 3, height: int = 8, width: int = 12) -> VideoField:
    """Of random displacements and colours."""
    field = VideoField(LAYERED, num_frames, height, width, torch.Generator().manual_seed(0), small_layers(num_frames, height, width))
    generator = torch.Generator().manual_seed(1)
    torch.nn.init.normal_(field.deformation.network[-1].weight, std=0.3, generator=generator)
    for image in (*field.canonicals, field.background):
        torch.nn.init.normal_(image.grid.table, generator=generator)
    return field
