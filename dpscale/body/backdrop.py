"""Backgrounds of rendered performers: rooms, plain studios, and scikit-image's sample photographs as scenery."""

from __future__ import annotations

import colorsys
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy.ndimage import zoom

from dpscale.body.looks import waves

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "brick", "grass", "gravel")
"""Sample pictures in scikit-image's wheel; see its data/README.txt for their licences (public domain or CC0)."""


@lru_cache(maxsize=len(PHOTOGRAPHS))
def photograph(name: str) -> Float[np.ndarray, "H W 3"]:
    """A sample picture in 0..1."""
    from skimage import data

    picture = getattr(data, name)() / 255.0
    return np.repeat(picture[..., None], 3, 2) if picture.ndim == 2 else picture[..., :3]


@lru_cache(maxsize=1)
def available_photographs() -> tuple[str, ...]:
    """Those of PHOTOGRAPHS that lie on disk: some versions of scikit-image fetch a few on demand."""
    from skimage import data

    return tuple(name for name in PHOTOGRAPHS if data.file_hash and _on_disk(name))


def _on_disk(name: str) -> bool:
    try:
        photograph(name)
    except (OSError, ModuleNotFoundError, AttributeError):
        return False
    return True


def backdrop(rng: np.random.Generator, size: int, horizon_px: float) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
    """A picture in 0..1 and where it is floor (0..1); `horizon_px` is the row at which the floor begins."""
    rows, columns = np.mgrid[:size, :size] + 0.5
    floor = (rows > horizon_px).astype(float)
    if rng.uniform() < 0.45:
        picture = _scenery(rng, size)
        return (picture if rng.uniform() < 0.5 else np.where(floor[..., None] > 0, _ground(rng, rows, columns, horizon_px, size), picture)), floor
    points = np.stack([columns, rows, np.zeros_like(rows)], -1).reshape(-1, 3) / size
    base = np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0, 0.5), rng.uniform(0.2, 0.95)))
    tone = 1 + 0.06 * waves(points, rng.uniform(3, 12), int(rng.integers(2**31))).reshape(size, size) + rng.normal(0, 0.15) * (rows / size - 0.5)
    wall = base * tone[..., None]
    for _ in range(rng.integers(0, 4)):
        _hang_panel(rng, wall, rows, columns, size, horizon_px)
    return np.clip(np.where(floor[..., None] > 0, _ground(rng, rows, columns, horizon_px, size), wall), 0, 1), floor


def _scenery(rng: np.random.Generator, size: int) -> Float[np.ndarray, "H W 3"]:
    picture = photograph(str(rng.choice(available_photographs())))
    side = int(rng.uniform(0.35, 1.0) * min(picture.shape[:2]))
    top, left = (int(rng.integers(0, picture.shape[axis] - side + 1)) for axis in (0, 1))
    part = picture[top : top + side, left : left + side]
    if rng.uniform() < 0.5:
        part = part[:, ::-1]
    part = zoom(part, (size / side, size / side, 1), order=1, mode="nearest", grid_mode=True)[:size, :size]
    return np.clip(part * rng.uniform(0.6, 1.2) * rng.uniform(0.8, 1.15, 3), 0, 1)


def _ground(rng, rows, columns, horizon_px, size) -> Float[np.ndarray, "H W 3"]:
    depth = size / np.maximum(rows - horizon_px, 1.0)
    across, along = (columns - size / 2) / size * depth, depth
    base = np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0, 0.5), rng.uniform(0.2, 0.85)))
    plank, tile = rng.uniform(0.1, 0.5), rng.uniform(0.2, 1.0)
    style = rng.integers(3)
    if style == 0:
        tone = 1 + 0.12 * np.sin(np.floor(across / plank) * 7.1 + rng.uniform(0, 6))
    elif style == 1:
        tone = 1 + 0.15 * np.sign(np.sin(across / tile * np.pi) * np.sin(along / tile * np.pi))
    else:
        tone = 1 + 0.1 * waves(np.stack([across, along, 0 * along], -1).reshape(-1, 3), 4.0, int(rng.integers(2**31))).reshape(rows.shape)
    return np.clip(base * np.asarray(tone)[..., None], 0, 1)


def _hang_panel(rng, wall, rows, columns, size, horizon_px) -> None:
    """A window, picture or door on the wall, in place."""
    width, height = rng.uniform(0.08, 0.3) * size, rng.uniform(0.1, 0.4) * size
    left, top = rng.uniform(0, size), rng.uniform(0, max(horizon_px - height, 1))
    inside = (columns > left) & (columns < left + width) & (rows > top) & (rows < top + height)
    wall[inside] = rng.uniform(0.05, 0.95, 3) * (1 + 0.2 * np.sin(rows[inside] / rng.uniform(2, 9)))[:, None]
