"""The smallest field."""

from __future__ import annotations

import torch

from dpscale.config.schema import FieldConfig, HashGridConfig
from dpscale.field.video_field import VideoField

GRID = HashGridConfig(n_levels=3, n_features_per_level=2, log2_hashmap_size=9, base_resolution=4, per_level_scale=1.6)
SMALL = FieldConfig(
    deformation_grid=GRID, canonical_grid=GRID, deformation_layers=2, deformation_width=8, canonical_layers=1, canonical_width=8,
    lr=1e-2, lr_milestones=(4, 6), samples=32, flow_samples=16,
)  # fmt: skip


def small_field(num_frames: int = 3, height: int = 8, width: int = 12) -> VideoField:
    return VideoField(SMALL, num_frames, height, width, torch.Generator().manual_seed(0))
