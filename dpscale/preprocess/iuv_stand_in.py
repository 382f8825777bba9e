"""u and v for a part map that has none, as MagicAnimate's coloured driving videos are.

Not zero: a pose network that has learned from real u, v would see a body whose every point lies in the corner of its chart. Instead
they say, as the charts of the embedded body do, how far along its segment (v) and how far across (u) a pixel lies - in the picture,
where the charts count on the body. Smooth within a part and repeatable; wrong where a part is foreshortened or half hidden, so no
surface correspondence: a flow made from them follows parts, not points."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from dpscale.body.bake import PARTS

_ENDS = {
    "torso": (("ulegR", "ulegL"), ("head", "uarmR", "uarmL")),
    "head": (("torso",), ()),
    **{"uleg" + side: (("torso",), ("lleg" + side,)) for side in "RL"},
    **{"lleg" + side: (("uleg" + side,), ("foot" + side,)) for side in "RL"},
    **{"foot" + side: (("lleg" + side,), ()) for side in "RL"},
    **{"uarm" + side: (("torso",), ("larm" + side,)) for side in "RL"},
    **{"larm" + side: (("uarm" + side,), ("hand" + side,)) for side in "RL"},
    **{"hand" + side: (("larm" + side,), ()) for side in "RL"},
}
"""Segment -> segments at the start of its axis and at its end: v runs from the trunk outwards, in the torso from the hips up."""
_UPWARDS = ("torso", "head")
_SLENDER = 2.0
"""Ratio of variances above which the longest direction of a segment is its axis."""
_MIRRORED = 23
"""The right half of the head: its u runs from the face backwards, the other way round in the picture than every other part's."""


def with_stand_in(parts: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """IUV of a part map (0..24): u and v stand in for unknown ones, as this module says."""
    iuv = np.zeros((*parts.shape, 3), np.uint8)
    iuv[..., 0] = parts
    pixels = {name: np.argwhere(np.isin(parts, numbers))[:, ::-1] for name, numbers in PARTS.items()}
    middles = {name: points.mean(0) for name, points in pixels.items() if len(points)}
    for name in middles:
        points = pixels[name]
        x, y = points.T
        axis = _axis(name, points, middles)
        across = points @ np.array([-axis[1], axis[0]])
        iuv[y, x, 2] = _spread(points @ axis)
        for part in set(PARTS[name]):
            own = parts[y, x] == part
            if own.any():
                u = _spread(across[own])
                iuv[y[own], x[own], 1] = 255 - u if part == _MIRRORED else u
    return iuv


def _axis(name: str, points: np.ndarray, middles: dict[str, np.ndarray]) -> Float[np.ndarray, " 2"]:
    """Unit vector along the segment in the picture, x right and y down."""
    outwards = _outwards(name, middles)
    spread = np.cov(points.T) if len(points) > 1 else np.eye(2)
    (short, long), directions = np.linalg.eigh(spread)
    if long <= _SLENDER * short:
        return outwards
    axis = directions[:, 1]
    return axis if axis @ outwards >= 0 else -axis


def _outwards(name: str, middles: dict[str, np.ndarray]) -> Float[np.ndarray, " 2"]:
    """Roughly from the segment's start to its end, from where its neighbours are seen; without any, upright."""
    start, end = ([middles[other] for other in others if other in middles] for others in _ENDS[name])
    here = middles[name]
    steps = ([here - np.mean(start, 0)] if start else []) + ([np.mean(end, 0) - here] if end else [])
    direction = np.sum([step / (np.linalg.norm(step) + 1e-9) for step in steps], 0) if steps else np.zeros(2)
    if np.linalg.norm(direction) < 1e-6:
        direction = np.array([0, -1.0 if name in _UPWARDS else 1.0])
    return direction / np.linalg.norm(direction)


def _spread(values: Float[np.ndarray, " P"]) -> UInt8[np.ndarray, " P"]:
    """From the least to the greatest as 0..255; the middle where there is no difference."""
    low, high = values.min(), values.max()
    return np.rint(255 * (values - low) / (high - low) if high > low else np.full(len(values), 127.5)).astype(np.uint8)
