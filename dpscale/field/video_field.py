"""V_s = C(D(H(x, y, n))): a video as canonical images and displacements for every pixel (DiffPerformer 4.2, Eq. 3-5).

By default there is one canonical image, which shows everything. Ours, both off by default: K canonical images, of which each frame is
a weighted mean, and a still background behind them (layers.py decides, from the driving pose, what takes part where)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from dpscale.config.schema import FieldConfig
from dpscale.field.canonical import BackgroundImage, CanonicalImage
from dpscale.field.deformation import Deformation
from dpscale.field.hash_grid_fused import lattice_points
from dpscale.field.layers import Layers

RENDER_CHUNK = 16384
"""Pixels evaluated at once when rendering. Fixed, because sums may depend on it in their last bit."""


class VideoField(nn.Module):
    """The implicit video representation of N frames of H x W px.

    Points are (x, y, n / N): pixel centres at ((column + 1/2) / W, (row + 1/2) / H), frames counted from 0.
    Its parameters follow from the generator alone; `layers`, which only one canonical image without background does without, are
    inputs like the frames: no part of its state."""

    def __init__(
        self, config: FieldConfig, num_frames: int, height: int, width: int, generator: torch.Generator, layers: Layers | None = None
    ) -> None:
        super().__init__()
        self.num_frames, self.height, self.width = num_frames, height, width
        count, layers = config.canonicals.count, layers or Layers(np.ones((num_frames, 1)), None)
        if layers.weights.shape != (num_frames, count) or (layers.body is None) == config.background.layer:
            raise ValueError(f"{count} canonical images of {num_frames} frames, background {config.background.layer}: other layers were given")
        self.deformation = Deformation(config, generator)
        self.canonicals = nn.ModuleList(CanonicalImage(config, generator) for _ in range(count))
        self.background = BackgroundImage(config, generator) if config.background.layer else None
        self.register_buffer("frame_weights", torch.from_numpy(layers.weights).float(), persistent=False)
        self.register_buffer("body", None if layers.body is None else torch.from_numpy(layers.body), persistent=False)

    def forward(self, points: Float[Tensor, "S 3"]) -> Float[Tensor, "S 3"]:
        """RGB in 0..1 at centres of pixels."""
        return self.colours(points, self.displacements(points, points[:0]))

    def displacements(self, points: Float[Tensor, "S 3"], anywhere: Float[Tensor, "R 3"]) -> Float[Tensor, "A K 2"]:
        """D at centres of pixels and then, A = S + R, at other points, which always count as the body. The network is evaluated once, and
        not at all at pixels that show the background alone: zero there."""
        if self.background is None:
            return self.deformation(torch.cat([points, anywhere]))
        body = (self.opacity(points) > 0).nonzero()[:, 0]
        at_body, elsewhere = self.deformation(torch.cat([points[body], anywhere])).split([len(body), len(anywhere)])
        return torch.cat([at_body.new_zeros(len(points), *at_body.shape[1:]).index_copy(0, body, at_body), elsewhere])

    def colours(self, points: Float[Tensor, "S 3"], displacements: Float[Tensor, "S K 2"]) -> Float[Tensor, "S 3"]:
        """RGB in 0..1 at centres of pixels: a C_body + (1 - a) C_background, with the opacity a. A layer that a hides is not looked at."""
        if self.background is None:
            return self.body_colours(points, displacements)
        opacity = self.opacity(points)[:, None]
        body, behind = ((layer[:, 0] > 0).nonzero()[:, 0] for layer in (opacity, 1 - opacity))
        picture = torch.zeros_like(points).index_add(0, body, opacity[body] * self.body_colours(points[body], displacements[body]))
        return picture.index_add(0, behind, (1 - opacity[behind]) * self.background(points[behind, :2]))

    def body_colours(self, points: Float[Tensor, "S 3"], displacements: Float[Tensor, "S K 2"]) -> Float[Tensor, "S 3"]:
        """sum_k w_nk C_k((x, y) + D_k): RGB in 0..1 from the canonical images alone. One without weight in a frame is not looked at there."""
        if len(self.canonicals) == 1:
            return self.canonicals[0](points[:, :2] + displacements[:, 0])
        weights, picture = self.weights_at(points), torch.zeros_like(points)
        for k, canonical in enumerate(self.canonicals):
            seen = weights[:, k].nonzero()[:, 0]
            picture = picture.index_add(0, seen, weights[seen, k, None] * canonical(points[seen, :2] + displacements[seen, k]))
        return picture

    def opacity(self, points: Float[Tensor, "S 3"]) -> Float[Tensor, " S"]:
        """0..1: how much of the background the body hides. Without a background layer 1."""
        if self.body is None:
            return torch.ones_like(points[:, 0])
        column, row = (points[:, 0] * self.width).long(), (points[:, 1] * self.height).long()
        return self.body[self.frames_of(points), row, column].to(points.dtype) / 255

    def weights_at(self, points: Float[Tensor, "S 3"]) -> Float[Tensor, "S K"]:
        """w_nk: the part of each canonical image in the points' frames."""
        return self.frame_weights[self.frames_of(points)].to(points.dtype)

    def frames_of(self, points: Float[Tensor, "S 3"]) -> Int[Tensor, " S"]:
        return (points[:, 2] * self.num_frames).round().long()

    @property
    def device(self) -> torch.device:
        """Where it is computed."""
        return next(self.parameters()).device

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
        x, y = ((torch.arange(size, device=self.device) + 0.5) / size for size in (self.width, self.height))
        time, parts = frame / self.num_frames, []
        for rows in y.split(num_rows):
            points = lattice_points(x, rows, time)
            # With a background few pixels need a displacement, and those are no lattice.
            parts.append(self.colours(points, self.deformation.lattice(x, rows, time)) if self.background is None else self(points))
        return torch.cat(parts).view(self.height, self.width, 3)

    def render_all(self) -> UInt8[np.ndarray, "N H W 3"]:
        """V_s, all frames."""
        return np.stack(list(self.render()))


def to_uint8(colours: Float[Tensor, "*any 3"]) -> UInt8[Tensor, "*any 3"]:
    """0..1 -> 0..255, rounded."""
    return (colours * 255).round().clamp(0, 255).to(torch.uint8)
