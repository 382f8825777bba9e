"""The person's outline as BlazePose sees it, kept small between the two passes over a video."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from dpscale.preprocess.blazepose import LANDMARK_PX, Reading, Roi
from dpscale.preprocess.crop import Crop
from dpscale.preprocess.sampling import bilinear


@dataclass(frozen=True)
class Silhouette:
    """Probability of the person in a square of the picture, packed: raw it would be the largest thing that a long video leaves in memory."""

    roi: Roi
    packed: bytes

    @classmethod
    def of(cls, reading: Reading) -> Silhouette:
        return cls(reading.roi, zlib.compress(np.rint(reading.silhouette * 255).astype(np.uint8).tobytes(), 1))

    def over(self, crop: Crop, scale: float, size: int) -> UInt8[np.ndarray, "P P"]:
        """Coverage 0..255 in `size` x `size` cells of the crop. `scale`: px of the crop's picture per px of the picture that was read."""
        inside = np.frombuffer(zlib.decompress(self.packed), np.uint8).reshape(LANDMARK_PX, LANDMARK_PX)
        centers = (np.arange(size) + 0.5) * (crop.side / size)
        in_picture = np.stack(np.meshgrid(centers + crop.left, centers + crop.top), -1) / scale
        places = (self.roi.from_picture(in_picture) + 0.5) * LANDMARK_PX - 0.5
        return np.rint(bilinear(inside[..., None], places)[..., 0]).astype(np.uint8)


def coverages(silhouettes: Sequence[Silhouette | None], crop: Crop, scale: float, size: int) -> UInt8[np.ndarray, "N P P"]:
    """Of all frames; zero where the person was not found."""
    nobody = np.zeros((size, size), np.uint8)
    return np.stack([nobody if one is None else one.over(crop, scale, size) for one in silhouettes])
