"""Where the body fit starts: the torso's axes and the place of the hips, from BlazePose's landmarks alone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def torso_frame(world: Float[np.ndarray, "N 33 3"]) -> Float[np.ndarray, "N 3 3"]:
    """Columns: the body's left, back and up, from shoulders and hips."""

    def unit(v: np.ndarray) -> np.ndarray:
        return v / np.linalg.norm(v, axis=1, keepdims=True)

    up = unit(world[:, [11, 12]].mean(1) - world[:, [23, 24]].mean(1))
    left = world[:, 23] - world[:, 24] + world[:, 11] - world[:, 12]
    left = unit(left - up * (left * up).sum(1, keepdims=True))
    return np.stack([left, np.cross(up, left), up], -1)


def first_root(landmarks: np.ndarray, world: np.ndarray, focal_px: float, center_px: tuple[float, float]) -> Float[np.ndarray, "N 3"]:
    """Hips seen in the picture, at the one depth where the extent of the limbs in space fits the extent in the picture."""
    limbs = [11, 12, 23, 24, 25, 26, 27, 28]
    picture, space = landmarks[:, limbs, :2], world[:, limbs, :2]
    spread_px = np.linalg.norm(picture - picture.mean(1, keepdims=True), axis=-1).sum(1)
    spread_m = np.linalg.norm(space - space.mean(1, keepdims=True), axis=-1).sum(1)
    depth = np.full(len(landmarks), np.median(focal_px * spread_m / spread_px))
    hips = landmarks[:, [23, 24], :2].mean(1)
    return np.concatenate([(hips - center_px) / focal_px * depth[:, None], depth[:, None]], 1)
