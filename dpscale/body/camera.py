"""Pinhole camera. Camera axes: x right, y down, z forward."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


def project(
    points: Float[np.ndarray, "*b 3"], focal_px: float, center_px: tuple[float, float]
) -> tuple[Float[np.ndarray, "*b 2"], Float[np.ndarray, "*b"]]:
    """Picture coordinates in px (pixel centres at .5) and depth in metres of points in camera axes."""
    depth = points[..., 2]
    return focal_px * points[..., :2] / depth[..., None] + np.asarray(center_px), depth


@dataclass(frozen=True)
class Viewpoint:
    """Where a camera stands in a world with z up."""

    eye: Float[np.ndarray, " 3"]
    rotation: Float[np.ndarray, "3 3"]
    """Rows: right, down, forward."""

    @classmethod
    def looking_at(cls, eye: Float[np.ndarray, " 3"], target: Float[np.ndarray, " 3"]) -> Viewpoint:
        forward = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        return cls(eye, np.stack([right, np.cross(forward, right), forward]))

    def to_camera(self, points: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3"]:
        return (points - self.eye) @ self.rotation.T

    def rays(self, height: int, width: int, focal_px: float, center_px: tuple[float, float]) -> Float[np.ndarray, "H W 3"]:
        """World direction through each pixel centre, with unit depth."""
        y, x = np.mgrid[:height, :width] + 0.5
        return np.stack([(x - center_px[0]) / focal_px, (y - center_px[1]) / focal_px, np.ones_like(x)], -1) @ self.rotation
