"""One fixed square around the person of a video: the camera stays as still as it was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from dpscale.data.types import InputError


@dataclass(frozen=True)
class Crop:
    """A square of a picture, resized to `size` x `size` px. It may reach beyond the picture, whose edge pixels then repeat."""

    left: int
    top: int
    side: int
    size: int

    @property
    def scale(self) -> float:
        """Crop px per picture px."""
        return self.size / self.side

    def apply(self, picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "S S 3"]:
        """The square, antialiased when it shrinks."""
        height, width = picture.shape[:2]
        right, bottom = self.left + self.side, self.top + self.side
        square = picture[max(self.top, 0) : bottom, max(self.left, 0) : right]
        beyond = [(max(-self.top, 0), max(bottom - height, 0)), (max(-self.left, 0), max(right - width, 0)), (0, 0)]
        image = Image.fromarray(np.pad(square, beyond, mode="edge"))
        return np.asarray(image.resize((self.size, self.size), Image.Resampling.BICUBIC))

    def points(self, points_px: Float[np.ndarray, "*b 2"]) -> Float[np.ndarray, "*b 2"]:
        """Picture px -> crop px (pixel centres at .5 in both)."""
        return (points_px - [self.left, self.top]) * self.scale

    def camera(self, focal_px: float, center_px: tuple[float, float]) -> tuple[float, tuple[float, float]]:
        """Focal length and principal point of the picture, in px of the crop."""
        x, y = self.points(np.array(center_px))
        return focal_px * self.scale, (float(x), float(y))


def crop_around(points_px: Float[np.ndarray, "P 2"], height: int, width: int, margin: float, size: int) -> Crop:
    """The square that holds all points inside the picture, times `margin`; inside the picture as far as it fits."""
    inside = points_px.clip(0, [width, height])
    low, high = inside.min(0), inside.max(0)
    if (high - low).max() < 1:
        raise InputError("the person lies outside the picture: film the whole person")
    side = max(1, round(float((high - low).max()) * margin))
    left, top = (low + high - side) / 2
    return Crop(_inside(left, side, width), _inside(top, side, height), side, size)


def _inside(start: float, side: int, length: int) -> int:
    low, high = sorted((0, length - side))
    return int(np.clip(round(start), low, high))
