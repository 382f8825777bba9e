"""Pose Feature Extractor (DiffPerformer 4.1, Fig. 3), built as VideoComposer builds its condition encoders."""

from __future__ import annotations

import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn


class PoseEncoder(ModelMixin, ConfigMixin):
    """Pose maps of one or more kinds -> one map of `out_channels` at the latent's size; kinds are summed.

    Each kind: 3x3 convolution, SiLU, average pool to 4x the latent size, two convolutions of stride 2 with SiLU between
    (METHOD.md writes 2x, which two halvings cannot bring to the latent's size), a transformer over the frames
    (VideoComposer: 2 heads, depth 1)."""

    @register_to_config
    def __init__(
        self, in_channels: dict[str, int], out_channels: int = 8, hidden_channels: int = 32, latent_size: int = 64, use_reference: bool = False
    ) -> None:
        super().__init__()
        self.spatial = nn.ModuleDict({kind: _SpatialEncoder(c, hidden_channels, out_channels, latent_size) for kind, c in in_channels.items()})
        self.temporal = nn.ModuleDict({kind: _frame_transformer(out_channels) for kind in in_channels})

    @property
    def resolution(self) -> int:
        """Size in px to which pose maps are pooled; finer maps cost more and say no more."""
        return 4 * self.config.latent_size

    def forward(self, pose_maps: dict[str, Float[Tensor, "B F c H W"]]) -> Float[Tensor, "B P F h w"]:
        total = 0.0
        for kind, encoder in self.spatial.items():
            if kind not in pose_maps:
                raise KeyError(f"the denoiser was built for pose kinds {sorted(self.spatial)}; the pose of kind {kind!r} is missing")
            maps = pose_maps[kind]
            features = encoder(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
            batch, _, _, height, width = features.shape
            tokens = features.permute(0, 3, 4, 1, 2).flatten(0, 2)
            mixed = self.temporal[kind](tokens)
            total = total + mixed.unflatten(0, (batch, height, width)).permute(0, 4, 3, 1, 2)
        return total


class _SpatialEncoder(nn.Module):
    def __init__(self, in_channels: int, hidden: int, out_channels: int, latent_size: int) -> None:
        super().__init__()
        self.latent_size = latent_size
        self.conv_in = nn.Conv2d(in_channels, hidden, 3, padding=1)
        self.conv_mid = nn.Conv2d(hidden, hidden, 3, stride=2, padding=1)
        self.conv_out = nn.Conv2d(hidden, out_channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x, size = F.silu(self.conv_in(x)), 4 * self.latent_size
        if x.shape[-2:] != (size, size):  # pooling to the same size copies, at the cost of a convolution
            x = F.adaptive_avg_pool2d(x, size)
        return self.conv_out(F.silu(self.conv_mid(x)))


def _frame_transformer(channels: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        channels, nhead=2, dim_feedforward=4 * channels, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, num_layers=1, enable_nested_tensor=False)
