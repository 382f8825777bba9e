"""What a person's outline in the picture says about a posed body: how far its rim should move, and how wide it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy.ndimage import map_coordinates

from dpscale.body.camera import project
from dpscale.body.parametric import BodyModel, ShapedBody
from dpscale.body.raster import Raster
from dpscale.body.rest_surface import NUM_GIRTHS, vertex_normals
from dpscale.body.surface_maps import rasterise_body
from dpscale.data.types import BodyMotion

_GRAZING = 0.25
"""Cosine between normal and view below which a vertex counts as on the rim."""
_REACH = 0.06
"""How far from the rim the outline is looked for, over the picture's side."""
_STEP_PX, _OFF_BODY_PX, _DEPTH_TOLERANCE_M = 0.5, 1.5, 0.03
_POINTS_PER_FRAME = 64
_ROBUST_M, _RIDGE = 0.03, 0.004
_GIRTH_LIMITS_M = (-0.04, 0.09)


@dataclass(frozen=True)
class Outlines:
    """Where a person is seen in each of N frames."""

    coverage: UInt8[np.ndarray, "N P P"]
    """0..255, over the square that the landmarks are given in."""
    side_px: float
    """Side of that square in px of the landmarks."""
    num_train: int
    """Only the first frames say how wide the body is: the rest is held out."""


@dataclass(frozen=True)
class Rim:
    """R points where the outline of the person lies near the rim of the body."""

    frame: Int[np.ndarray, " R"]
    vertex: Int[np.ndarray, " R"]
    """The vertex on the rim."""
    target: Float[np.ndarray, "R 2"]
    """Where the outline is, in px of the landmarks."""
    normal: Float[np.ndarray, "R 2"]
    """Outward direction in the picture, of length 1: only the distance along it is known."""
    gap_m: Float[np.ndarray, " R"]
    """How much further out than the rim the outline lies."""


def find_rim(body: BodyModel, shaped: ShapedBody, motion: BodyMotion, outlines: Outlines, frames: Iterable[int]) -> Rim:
    """Looks from each vertex on the rim along its normal for the outline, in the given frames."""
    scale = outlines.coverage.shape[1] / outlines.side_px
    focal, center = motion.focal_px * scale, (motion.center_px[0] * scale, motion.center_px[1] * scale)
    parts = []
    for n in frames:
        vertices = body.skin(shaped, motion.rotations[n][None].astype(float), motion.root[n][None].astype(float))[0]
        parts.append(_rim_of_frame(body, vertices, focal, center, n, outlines.coverage[n] / 255.0))
    rim = Rim(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return Rim(rim.frame, rim.vertex, rim.target / scale, rim.normal, rim.gap_m)


def fit_girths(body: BodyModel, rim: Rim, size: float, before: Float[np.ndarray, " G"]) -> Float[np.ndarray, " G"]:
    """Girths with which the body would reach the outline: ridge regression, far points count less.

    `before`: the girths with which `rim` was found; `size`: factor on all lengths of the body."""
    weights = body.girth_basis[rim.vertex]
    wanted = rim.gap_m / size + weights @ before
    trust = 1 / (1 + (rim.gap_m / _ROBUST_M) ** 2)
    normal = (weights * trust[:, None]).T @ weights + (_RIDGE * len(weights) + 1e-9) * np.eye(NUM_GIRTHS)
    return np.linalg.solve(normal, (weights * trust[:, None]).T @ wanted).clip(*_GIRTH_LIMITS_M)


def _rim_of_frame(body: BodyModel, vertices: Float[np.ndarray, "V 3"], focal: float, center: tuple[float, float], frame: int, coverage: np.ndarray):
    """The fields of Rim, in px of the coverage."""
    size = len(coverage)
    raster = rasterise_body(body, vertices, focal, center, size, size)
    points, depth = project(vertices, focal, center)
    outward = vertex_normals(vertices, body.faces)
    view = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    seen = outward[:, :2] - outward[:, 2:] * view[:, :2] / view[:, 2:]
    direction = seen / (np.linalg.norm(seen, axis=1, keepdims=True) + 1e-9)
    grazing = np.abs((outward * view).sum(1)) < _GRAZING
    rim = np.flatnonzero(grazing & _on_rim(raster, points, points + _OFF_BODY_PX * direction, depth))
    rim = rim[np.linspace(0, len(rim) - 1, min(_POINTS_PER_FRAME, len(rim))).astype(int)]
    offset = _distance_to_outline(coverage, points[rim], direction[rim])
    found = np.isfinite(offset)
    rim, offset = rim[found], offset[found]
    return np.full(len(rim), frame), rim, points[rim] + offset[:, None] * direction[rim], direction[rim], offset * depth[rim] / focal


def _on_rim(raster: Raster, points: Float[np.ndarray, "V 2"], outside: Float[np.ndarray, "V 2"], depth: Float[np.ndarray, " V"]) -> np.ndarray:
    """Vertices that are seen, with no body a little further out."""
    limit = len(raster.face) - 1
    here, there = (np.floor(p).astype(int) for p in (points, outside))
    inside = ((there >= 0) & (there <= limit)).all(1)
    here, there = here.clip(0, limit), there.clip(0, limit)
    nearest = np.where(np.isfinite(raster.depth), raster.depth, np.inf)[here[:, 1], here[:, 0]]
    return inside & (raster.face[there[:, 1], there[:, 0]] < 0) & (depth <= nearest + _DEPTH_TOLERANCE_M)


def _distance_to_outline(coverage: np.ndarray, points: Float[np.ndarray, "R 2"], direction: Float[np.ndarray, "R 2"]) -> Float[np.ndarray, " R"]:
    """Signed px along `direction` to the nearest place where coverage falls through one half; NaN where there is none in reach."""
    reach = _REACH * len(coverage)
    steps = np.arange(-reach, reach + _STEP_PX / 2, _STEP_PX)
    places = points[:, None] + steps[:, None] * direction[:, None] - 0.5
    value = map_coordinates(coverage, [places[..., 1], places[..., 0]], order=1, mode="nearest")
    before, after = value[:, :-1], value[:, 1:]
    falls = (before >= 0.5) & (after < 0.5)
    crossing = steps[:-1] + _STEP_PX * (before - 0.5) / np.where(falls, before - after, 1)
    nearest = np.where(falls, np.abs(crossing), np.inf).argmin(1)[:, None] if len(points) else np.zeros((0, 1), int)
    return np.where(np.take_along_axis(falls, nearest, 1), np.take_along_axis(crossing, nearest, 1), np.nan)[:, 0]
