"""Draws skeletons as ControlNet's OpenPose and DWPose annotators do: exact truth for what reads such drawings."""

from __future__ import annotations

import colorsys

import numpy as np
from jaxtyping import Float, UInt8
from skimage.draw import disk, ellipse, line

LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10),
    (1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
"""In the order of drawing; limb i has the colour of point i."""
COLOURS = np.array(
    [
        (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85), (0, 255, 170),
        (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
    ],
    np.uint8,
)  # fmt: skip


def draw_skeleton(
    keypoints: Float[np.ndarray, "18 3"], size: int, stick_px: float = 4, radius_px: float = 4, extras: int | None = None
) -> UInt8[np.ndarray, "S S 3"]:
    """One person on black; keypoints without confidence and their limbs are left out. `extras`: seed of hands and a face drawn over."""
    canvas = np.zeros((size, size, 3), np.uint8)
    seen = keypoints[:, 2] > 0
    points = np.floor(keypoints[:, :2])  # the annotators cut coordinates to whole pixels
    for colour, (a, b) in zip(COLOURS, LIMBS, strict=False):
        if seen[a] and seen[b]:
            _limb(canvas, points[a], points[b], stick_px, colour * 0.6)
    for colour, (x, y), visible in zip(COLOURS, points, seen, strict=True):
        if visible:
            _disc(canvas, x, y, radius_px, colour)
    if extras is not None:
        _face_and_hands(canvas, points, seen, np.random.default_rng(extras))
    return canvas


def _limb(canvas: np.ndarray, a: np.ndarray, b: np.ndarray, stick_px: float, colour: np.ndarray) -> None:
    (x, y), (dx, dy) = (a + b) / 2, b - a
    if np.hypot(dx, dy) < 1:
        return
    rows, columns = ellipse(y, x, stick_px, np.hypot(dx, dy) / 2, canvas.shape, rotation=-np.arctan2(dy, dx))
    canvas[rows, columns] = colour


def _disc(canvas: np.ndarray, x: float, y: float, radius_px: float, colour) -> None:
    canvas[disk((y, x), radius_px + 0.3, shape=canvas.shape[:2])] = colour


def _face_and_hands(canvas: np.ndarray, points: np.ndarray, seen: np.ndarray, rng: np.random.Generator) -> None:
    size = len(canvas)
    reach = size / 25
    if seen[0]:
        for x, y in points[0] + rng.normal(0, reach / 2, (30, 2)):
            _disc(canvas, x, y, 1.5, (255, 255, 255))
    for elbow, wrist in ((3, 4), (6, 7)):
        if seen[elbow] and seen[wrist]:
            out = (points[wrist] - points[elbow]) / (np.linalg.norm(points[wrist] - points[elbow]) + 1e-6)
            root = points[wrist] + out * reach / 2
            tips = root + reach * (out + rng.normal(0, 0.4, (5, 2)))
            for finger, tip in enumerate(tips):
                colour = np.multiply(colorsys.hsv_to_rgb(finger / 5 + rng.uniform(0, 0.2), 1, 1), 255)
                (c0, r0), (c1, r1) = np.rint(np.stack([root, tip])).astype(int).clip(0, size - 1)
                for shift in (0, 1):
                    rows, columns = line(r0, c0, r1, c1)
                    canvas[rows, (columns + shift).clip(0, size - 1)] = colour
                _disc(canvas, *tip, 2, (0, 0, 255))
