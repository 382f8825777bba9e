"""Z-buffer rasteriser in numpy, vectorised over triangles of similar size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 512, 1024, 2048)
_MAX_CANDIDATES = 2_000_000


@dataclass(frozen=True)
class Raster:
    """What each pixel sees."""

    face: Int[np.ndarray, "H W"]
    """Index of the nearest face, -1 for none."""
    barycentric: Float[np.ndarray, "H W 3"]
    """Perspective-correct weights of the face's corners."""
    depth: Float[np.ndarray, "H W"]
    """Metres, infinity for none."""


def rasterise(points_px: Float[np.ndarray, "V 2"], depth: Float[np.ndarray, " V"], faces: Int[np.ndarray, "F 3"], height: int, width: int) -> Raster:
    """Rasterises front faces (clockwise in the picture) at pixel centres. Faces with a corner behind the camera are left out."""
    a, b, c = (points_px[faces[:, k]] for k in range(3))
    area = _cross(b - a, c - a)
    low = np.maximum(np.ceil(np.minimum(np.minimum(a, b), c) - 0.5), 0)
    high = np.minimum(np.floor(np.maximum(np.maximum(a, b), c) - 0.5), [width - 1, height - 1])
    drawn = np.flatnonzero((area < 0) & (high >= low).all(1) & (depth[faces] > 1e-6).all(1))
    extent = (high - low)[drawn].max(1) + 1
    found = []
    for smaller, size in zip((0, *_SIZES[:-1]), _SIZES, strict=True):
        group = drawn[(extent > smaller) & (extent <= size)]
        if len(group):
            pieces = max(1, len(group) * size * size // _MAX_CANDIDATES)
            found += [_fill(t, size, a, b, c, area, low, high, depth, faces, width) for t in np.array_split(group, pieces)]
    return _nearest(found, height, width)


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def _fill(t, size, a, b, c, area, low, high, depth, faces, width):
    """Covered pixels of the faces `t`, none wider than `size`: face, flat pixel index, depth, barycentrics."""
    offset_y, offset_x = np.divmod(np.arange(size * size), size)
    px, py = low[t, :1] + offset_x, low[t, 1:] + offset_y
    center = np.stack([px + 0.5, py + 0.5], -1)
    corner_a, corner_b, corner_c = (corner[t][:, None] - center for corner in (a, b, c))
    w_a, w_b = _cross(corner_b, corner_c) / area[t, None], _cross(corner_c, corner_a) / area[t, None]
    w_c = 1 - w_a - w_b
    inside = (w_a >= 0) & (w_b >= 0) & (w_c >= 0) & (px <= high[t, :1]) & (py <= high[t, 1:])
    face = t[np.nonzero(inside)[0]]
    weights = np.stack([w_a[inside], w_b[inside], w_c[inside]], 1) / depth[faces[face]]
    inverse_depth = weights.sum(1)
    return face, (py[inside] * width + px[inside]).astype(np.int64), 1 / inverse_depth, weights / inverse_depth[:, None]


def _nearest(found, height: int, width: int) -> Raster:
    face, barycentric, depth = np.full(height * width, -1), np.zeros((height * width, 3)), np.full(height * width, np.inf)
    if found:
        faces, pixels, depths, weights = (np.concatenate(column) for column in zip(*found, strict=True))
        np.minimum.at(depth, pixels, depths)
        wins = depths <= depth[pixels]
        face[pixels[wins]], barycentric[pixels[wins]] = faces[wins], weights[wins]
    return Raster(face.reshape(height, width), barycentric.reshape(height, width, 3), depth.reshape(height, width))
