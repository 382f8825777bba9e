"""Human flow from IUV alone: equal (part, u, v) in two frames is the same point of the body (METHOD 5, the second estimator of F).

For clips of which no mesh is known, only DensePose. Each body pixel looks for its surface point among the next frame's pixels, in a
k-d tree over charts that lie far apart, and then between those pixels, along the local slope of u and v."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy.spatial import cKDTree

from dpscale.body.surface_maps import Flow

_CHARTS_APART = 1e4
"""Distance between two parts in the tree, in steps of u and v: farther than any two points of one part."""
_RIVALS, _RIVAL_UV, _RIVAL_PX = 4, 6.0, 4.0
"""Of so many nearest pixels, one that is hardly farther in u and v but lies so many px from the nearest makes the match a guess: hands
and feet of the embedded body have the same chart on both sides."""
_STEP_PX = 1.25
"""Farthest that a surface point may lie from the nearest pixel that shows its neighbourhood: else that place is hidden."""
_NEAR_UV = 24.0
"""Farthest in u, v (0..255) from the nearest pixel: where a chart is squeezed into few pixels, one px is a long way on the body."""
_RETURN_PX = 1.25
"""A match must lead back to where it came from, to so many px."""
_FLAT = 0.25
"""Slope of u or v, in steps a px, below which it says nothing about the place: rounding alone makes such slopes."""


@dataclass(frozen=True)
class ClipFlow:
    """Flow n -> n+1 of a clip, as data.types.Pose has it: nothing in the last frame."""

    flow: Float[np.ndarray, "N H W 2"]
    """(dx / W, dy / H), float16 as shards keep it."""
    valid: Bool[np.ndarray, "N H W"]


@dataclass(frozen=True)
class _Surface:
    """The P body pixels of one frame."""

    pixels: Int[np.ndarray, "P 2"]
    """Row, column."""
    charts: Float[np.ndarray, "P 3"]
    """Part, u, v, as the tree measures them."""
    uv_to_px: Float[np.ndarray, "P 2 2"]
    """(dx, dy) in px that a step in (u, v) leads to, from the pixel's neighbours."""
    tree: cKDTree

    @property
    def centers(self) -> Float[np.ndarray, "P 2"]:
        """x, y in px."""
        return self.pixels[:, ::-1] + 0.5


@dataclass(frozen=True)
class _Match:
    """Where Q surface points lie in a frame."""

    points: Float[np.ndarray, "Q 2"]
    """x, y in px."""
    near: Bool[np.ndarray, " Q"]
    nearest: Int[np.ndarray, " Q"]
    """Index of the nearest body pixel."""


def iuv_flow(here: UInt8[np.ndarray, "H W 3"], there: UInt8[np.ndarray, "H W 3"]) -> Flow:
    """Flow of every body pixel of `here` to `there`, (dx / W, dy / H).

    A pixel is valid if a pixel of `there` is near in part, u and v, and leads back to it. Pixels whose point hides or leaves the
    picture, and pixels off the body, are zero and not valid."""
    height, width = here.shape[:2]
    offset, valid = np.zeros((height, width, 2)), np.zeros((height, width), bool)
    start, end = _surface(here), _surface(there)
    if start is None or end is None:
        return Flow(offset, valid)
    forward = _find(start.charts, end)
    back = _find(end.charts[forward.nearest], start)
    # The pixel that leads back is not the point itself: its distance from it must come back unchanged.
    expected = start.centers + end.centers[forward.nearest] - forward.points
    sound = forward.near & back.near & (np.linalg.norm(back.points - expected, axis=1) <= _RETURN_PX)
    rows, columns = start.pixels[sound].T
    offset[rows, columns] = (forward.points - start.centers)[sound] / [width, height]
    valid[rows, columns] = True
    return Flow(offset, valid)


def clip_flow(iuv: UInt8[np.ndarray, "N H W 3"]) -> ClipFlow:
    """Flow n -> n+1 of all frames of a clip, two frames at a time."""
    flow, valid = np.zeros((*iuv.shape[:3], 2), np.float16), np.zeros(iuv.shape[:3], bool)
    for n, (here, there) in enumerate(pairwise(iuv)):
        step = iuv_flow(here, there)
        flow[n], valid[n] = step.offset, step.valid
    return ClipFlow(flow, valid)


def _surface(iuv: UInt8[np.ndarray, "H W 3"]) -> _Surface | None:
    """None if there is no body in the frame."""
    body = iuv[..., 0] > 0
    if not body.any():
        return None
    pixels = np.argwhere(body)
    charts = iuv[body] * [_CHARTS_APART, 1.0, 1.0]
    return _Surface(pixels, charts, _uv_to_px(pixels, charts, body), cKDTree(charts))


def _uv_to_px(pixels: Int[np.ndarray, "P 2"], charts: Float[np.ndarray, "P 3"], body: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "P 2 2"]:
    """Least squares over the 3 x 3 neighbours of the same part, inverted with damping: a direction without slope gives no step."""
    rank = np.full((body.shape[0] + 2, body.shape[1] + 2), -1)
    rank[1:-1, 1:-1][body] = np.arange(len(pixels))
    spread, slope = np.zeros((len(pixels), 2, 2)), np.zeros((len(pixels), 2, 2))
    for dy, dx in np.ndindex(3, 3):
        other = rank[pixels[:, 0] + dy, pixels[:, 1] + dx]
        change = charts[other] - charts
        same = ((other >= 0) & (change[:, 0] == 0))[:, None, None]
        away = np.array([dx - 1, dy - 1])
        spread += np.outer(away, away) * same
        slope += change[:, 1:, None] * away * same
    gradient = slope @ np.linalg.inv(spread + 1e-6 * np.eye(2))
    turned = np.swapaxes(gradient, 1, 2)
    return np.linalg.inv(turned @ gradient + _FLAT**2 * np.eye(2)) @ turned


def _find(charts: Float[np.ndarray, "Q 3"], surface: _Surface) -> _Match:
    away, nearest = surface.tree.query(charts, _RIVALS, distance_upper_bound=_CHARTS_APART / 2)
    found = np.isfinite(away)
    nearest = np.where(found, nearest, 0)
    first = nearest[:, 0]
    left = (charts - surface.charts[first])[:, 1:] * found[:, :1]
    step = np.einsum("qij,qj->qi", surface.uv_to_px[first], left)
    elsewhere = np.linalg.norm(surface.centers[nearest] - surface.centers[first][:, None], axis=2) > _RIVAL_PX
    guess = (found & elsewhere & (away < away[:, :1] + _RIVAL_UV)).any(1)
    near = found[:, 0] & ~guess & (np.linalg.norm(step, axis=1) <= _STEP_PX) & (np.linalg.norm(left, axis=1) <= _NEAR_UV)
    return _Match(surface.centers[first] + step, near, first)
