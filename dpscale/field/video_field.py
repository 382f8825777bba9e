"""V_s = C(D(H(x, y, n))): a video as one canonical image and a displacement for every pixel (DiffPerformer 4.2, Eq. 3-5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from dpscale.config.schema import FieldConfig
from dpscale.field.canonical import CanonicalImage
from dpscale.field.deformation import Deformation
from dpscale.field.hash_grid_fused import lattice_points

RENDER_CHUNK = 16384
"""Pixels evaluated at once when rendering. Fixed, because sums may depend on it in their last bit."""


class VideoField(nn.Module):
    """The implicit video representation of N frames of H x W px.

    Points are (x, y, n / N): pixel centres at ((column + 1/2) / W, (row + 1/2) / H), frames counted from 0.
    Its parameters follow from the generator alone."""

    def __init__(self, config: FieldConfig, num_frames: int, height: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.num_frames, self.height, self.width = num_frames, height, width
        self.deformation = Deformation(config, generator)
        self.canonical = CanonicalImage(config, generator)

    def forward(self, points: Float[Tensor, "S 3"]) -> Float[Tensor, "S 3"]:
        """RGB in 0..1."""
        return self.colours(points, self.deformation(points))

    def colours(self, points: Float[Tensor, "S 3"], displacements: Float[Tensor, "S 2"]) -> Float[Tensor, "S 3"]:
        """RGB in 0..1 of points whose displacements are known."""
        return self.canonical(points[:, :2] + displacements)

    def points(self, pixels: Int[Tensor, " S"]) -> Float[Tensor, "S 3"]:
        """Points of pixels, which are counted over the whole video: (frame * H + row) * W + column."""
        frame, row, column = self.frame_row_column(pixels)
        return torch.stack([(column + 0.5) / self.width, (row + 0.5) / self.height, frame / self.num_frames], dim=1)

    def frame_row_column(self, pixels: Int[Tensor, " S"]) -> tuple[Int[Tensor, " S"], Int[Tensor, " S"], Int[Tensor, " S"]]:
        """Indices into [N, H, W] of pixels that are counted over the whole video."""
        return pixels // (self.width * self.height), pixels // self.width % self.height, pixels % self.width

    @torch.no_grad()
    def render(self, frames: Iterable[int] | None = None, chunk: int = RENDER_CHUNK) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """The frames asked for (none: all), one after the other, so that memory does not grow with their number."""
        for frame in range(self.num_frames) if frames is None else frames:
            yield to_uint8(self._picture(frame, max(1, chunk // self.width))).cpu().numpy()

    def _picture(self, frame: int, num_rows: int) -> Float[Tensor, "H W 3"]:
        """One frame, some rows at once, on the lattice that its pixels are."""
        device = next(self.parameters()).device
        x, y = ((torch.arange(size, device=device) + 0.5) / size for size in (self.width, self.height))
        parts = []
        for rows in y.split(num_rows):
            displacements = self.deformation.lattice(x, rows, frame / self.num_frames)
            parts.append(self.colours(lattice_points(x, rows, frame / self.num_frames), displacements))
        return torch.cat(parts).view(self.height, self.width, 3)

    def render_all(self) -> UInt8[np.ndarray, "N H W 3"]:
        """V_s, all frames."""
        return np.stack(list(self.render()))


def to_uint8(colours: Float[Tensor, "*any 3"]) -> UInt8[Tensor, "*any 3"]:
    """0..1 -> 0..255, rounded."""
    return (colours * 255).round().clamp(0, 255).to(torch.uint8)
