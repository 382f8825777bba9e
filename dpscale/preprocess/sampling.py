"""Values of a picture between its pixels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num


def bilinear(picture: Num[np.ndarray, "H W C"], points: Float[np.ndarray, "h w 2"]) -> Float[np.ndarray, "h w C"]:
    """Values at x, y (pixel centres at whole numbers), black outside."""
    height, width = picture.shape[:2]
    low = np.floor(points).astype(int)
    part = (points - low)[..., None]
    flat = picture.reshape(height * width, -1)  # one index a point: faster than two

    def at(dx: int, dy: int) -> np.ndarray:
        x, y = low[..., 0] + dx, low[..., 1] + dy
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        values = flat.take(y.clip(0, height - 1) * width + x.clip(0, width - 1), axis=0)
        return values if inside.all() else values * inside[..., None]

    top = at(0, 0) * (1 - part[..., 0, :]) + at(1, 0) * part[..., 0, :]
    bottom = at(0, 1) * (1 - part[..., 0, :]) + at(1, 1) * part[..., 0, :]
    return top * (1 - part[..., 1, :]) + bottom * part[..., 1, :]
