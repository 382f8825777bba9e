"""Limbs and joints of a skeleton drawing as shapes: pixels by their colour, sticks and discs by their pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy.ndimage import binary_dilation, find_objects, uniform_filter
from skimage.measure import label as connected_regions

from dpscale.data.types import OPENPOSE18
from dpscale.diffusion.conditions import LIMBS

JOINT_COLOURS = np.array(
    [
        (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85), (0, 255, 170),
        (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
    ],
    np.uint8,
)  # fmt: skip
"""ControlNet's colours of OPENPOSE18's joints; limb i of LIMBS has the hue of joint i at LIMB_BRIGHTNESS."""
LIMB_BRIGHTNESS = 0.6
NUM_JOINTS, NUM_LIMBS = len(OPENPOSE18), len(LIMBS)
DARK = 48
"""Brightest value of what may be black."""
NO_LABEL = 255

_COLOURS = np.concatenate([JOINT_COLOURS, JOINT_COLOURS[:NUM_LIMBS] * LIMB_BRIGHTNESS, [[255, 255, 255]]]).astype(np.float32)
_NEAR = 45.0
"""Distance in RGB up to which compression explains a colour; neighbouring hues are 51 (limbs) and 85 (joints) apart."""
_MIN_LIMB_PX, _MIN_DISC_PX = 8, 3
_MIN_PIECE = 0.1
"""Of a stick that something cuts: the smallest piece over the largest."""
_MOST = 6
"""Sticks of one colour."""
_RIM_PX = 2
"""Width of a disc's rim, which is as dark as a limb of its hue."""
_MARGIN_PX = 4


@dataclass(frozen=True)
class Ray:
    """Where a limb goes on under what covers it."""

    start: Float[np.ndarray, " 2"]
    direction: Float[np.ndarray, " 2"]
    length: float
    """As long as what is seen of the limb, in px."""

    def point_at(self, away_px: float) -> Float[np.ndarray, " 2"]:
        return self.start + away_px * self.direction

    def nearest(self, point: Float[np.ndarray, " 2"]) -> Float[np.ndarray, " 2"]:
        return self.point_at(float(np.clip((point - self.start) @ self.direction, 0, self.length)))


@dataclass(frozen=True)
class Stick:
    """A limb, as far as it is seen."""

    ends: Float[np.ndarray, "2 2"]
    """x, y in px, in no order."""
    half_width: float
    area: int
    """In px."""

    @property
    def length(self) -> float:
        return float(np.linalg.norm(self.ends[1] - self.ends[0]))

    def ray_from(self, point: Float[np.ndarray, " 2"]) -> Ray:
        """From the end that is farther from the point onwards."""
        far, near = sorted(self.ends, key=lambda end: -np.linalg.norm(end - point))
        return Ray(far, (far - near) / (self.length + 1e-9), self.length)

    def agrees(self, point: Float[np.ndarray, " 2"], slack_px: float) -> float:
        """1 if the point is an end; 0.5 if it lies on the line beyond an end, where a covered stick may go on; else 0."""
        if np.linalg.norm(self.ends - point, axis=1).min() <= slack_px:
            return 1.0
        (dx, dy), (x, y) = self.ends[1] - self.ends[0], point - self.ends[0]
        length = np.hypot(dx, dy) + 1e-9
        along, aside = (x * dx + y * dy) / length**2, abs(x * dy - y * dx) / length
        beyond = max(-along, along - 1)
        return 0.5 if 0 < beyond <= 0.5 and aside <= self.half_width + 2 else 0.0


@dataclass(frozen=True)
class Disc:
    """Pixels that may be a joint's disc, or what is seen of it."""

    center: Float[np.ndarray, " 2"]
    area: int
    """In px."""
    reach: float
    """Px from the centre to the farthest pixel's rim."""

    def fullness(self, radius: float) -> float:
        """How much of a disc of at least this radius the pixels fill, 0..1. Lines fill little."""
        return min(1.0, self.area / (np.pi * max(self.reach, radius) ** 2))


def colour_labels(picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W"]:
    """Joint 0..17, 18 + limb, 35 for white, 255 for black and for colours that are none of these."""
    labels = np.full(picture.shape[:2], NO_LABEL, np.uint8)
    drawn = picture.max(-1) > DARK
    pixels = picture[drawn].astype(np.float32)
    squared = np.square(pixels).sum(-1, keepdims=True) - 2 * pixels @ _COLOURS.T + np.square(_COLOURS).sum(-1)
    labels[drawn] = np.where(squared.min(-1) <= _NEAR**2, squared.argmin(-1), NO_LABEL)
    return labels


def find_sticks(labels: UInt8[np.ndarray, "H W"]) -> list[list[Stick]]:
    """What may be each limb of LIMBS, the largest first."""
    return [_sticks(window, limb) for limb, window in enumerate(_windows(labels)[NUM_JOINTS:])]


def find_discs(labels: UInt8[np.ndarray, "H W"]) -> list[list[Disc]]:
    """What may be the disc of each joint, the largest first."""
    return [_discs(window, joint) for joint, window in enumerate(_windows(labels)[:NUM_JOINTS])]


@dataclass(frozen=True)
class _Window:
    """The part of a picture that holds all pixels of one colour, and a margin."""

    labels: UInt8[np.ndarray, "h w"]
    corner: Int[np.ndarray, " 2"]
    """x, y of its first pixel."""


def _windows(labels: UInt8[np.ndarray, "H W"]) -> list[_Window | None]:
    """By label of a joint or limb; None where there is no pixel of it."""
    boxes = find_objects(labels.astype(np.int32) + 1, NUM_JOINTS + NUM_LIMBS)
    return [_window(labels, box) if box else None for box in boxes]


def _window(labels: UInt8[np.ndarray, "H W"], box: tuple[slice, slice]) -> _Window:
    top, left = (max(side.start - _MARGIN_PX, 0) for side in box)
    bottom, right = (side.stop + _MARGIN_PX for side in box)
    return _Window(labels[top:bottom, left:right], np.array([left, top]))


def _without_rim(limb: Bool[np.ndarray, "h w"], disc: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    return limb & ~binary_dilation(disc, np.ones((3, 3)), _RIM_PX)


def _regions(mask: Bool[np.ndarray, "h w"], corner: Int[np.ndarray, " 2"]) -> list[Int[np.ndarray, "P 2"]]:
    """x, y of the pixels of each connected region, the largest region first."""
    numbers = connected_regions(mask, connectivity=2)
    pixels, number = np.argwhere(mask)[:, ::-1] + corner, numbers[mask]
    regions = [pixels[number == one] for one in range(1, int(numbers.max()) + 1)]
    return sorted(regions, key=len, reverse=True)


def _sticks(window: _Window | None, limb: int) -> list[Stick]:
    """The line through the largest region and all others of some size that lie on it, because a limb that crosses cuts a stick in
    two; then the same again with the rest."""
    if window is None:
        return []
    mask = _without_rim(window.labels == NUM_JOINTS + limb, window.labels == limb)
    regions, sticks = _regions(_solid(mask), window.corner), []
    while len(sticks) < _MOST and regions and len(regions[0]) >= _MIN_LIMB_PX:
        center, axis, half_width = _line(regions[0])
        least = max(_MIN_LIMB_PX, _MIN_PIECE * len(regions[0]))
        on_line = [len(region) >= least and np.abs(_aside(region, center, axis)).mean() <= half_width + 1 for region in regions]
        sticks.append(_stick(np.concatenate([region for region, on in zip(regions, on_line, strict=True) if on])))
        regions = [region for region, on in zip(regions, on_line, strict=True) if not on]
    return sticks


def _solid(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Without edges and lines that are a pixel wide: mixed colours make those."""
    return mask & (uniform_filter(mask.astype(np.float32), 3, mode="constant") > 4.5 / 9)


def _stick(points: Int[np.ndarray, "P 2"]) -> Stick:
    center, axis, half_width = _line(points)
    along = (points + 0.5 - center) @ axis
    return Stick(center + np.outer([along.min() - 0.5, along.max() + 0.5], axis), half_width, len(points))


def _line(points: Int[np.ndarray, "P 2"]) -> tuple[Float[np.ndarray, " 2"], Float[np.ndarray, " 2"], float]:
    """Centre and direction in px, and half the width of an ellipse with these moments."""
    center = points.mean(0) + 0.5
    variance, directions = np.linalg.eigh(np.cov(points.T))
    return center, directions[:, 1], 2 * float(np.sqrt(max(variance[0], 0)))


def _aside(points: Int[np.ndarray, "P 2"], center: Float[np.ndarray, " 2"], axis: Float[np.ndarray, " 2"]) -> Float[np.ndarray, " P"]:
    return (points + 0.5 - center) @ np.array([-axis[1], axis[0]])


def _discs(window: _Window | None, joint: int) -> list[Disc]:
    regions = _regions(window.labels == joint, window.corner) if window else []
    return [_disc(region) for region in regions if len(region) >= _MIN_DISC_PX]


def _disc(points: Int[np.ndarray, "P 2"]) -> Disc:
    middle = points.mean(0)
    return Disc(middle + 0.5, len(points), float(np.linalg.norm(points - middle, axis=1).max()) + 0.5)
