"""What a posed mesh says about pixels: IUV and 3D-aware human flow (METHOD 5; DiffPerformer 4.2.2, Eq. 7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from dpscale.body.camera import project
from dpscale.body.parametric import BodyModel
from dpscale.body.raster import Raster, rasterise


@dataclass(frozen=True)
class Flow:
    """Displacement of each pixel's surface point to the next frame."""

    offset: Float[np.ndarray, "H W 2"]
    """(dx / W, dy / H); zero where not valid."""
    valid: Bool[np.ndarray, "H W"]
    """The surface point is seen in this frame and in the next."""


def rasterise_body(
    body: BodyModel, vertices: Float[np.ndarray, "V 3"], focal_px: float, center_px: tuple[float, float], height: int, width: int
) -> Raster:
    """Rasterises a posed mesh given in camera axes."""
    points, depth = project(vertices, focal_px, center_px)
    return rasterise(points, depth, body.faces, height, width)


def iuv_map(body: BodyModel, raster: Raster) -> UInt8[np.ndarray, "H W 3"]:
    """Part 1..24 (0: background), u and v times 255."""
    iuv = np.zeros((*raster.face.shape, 3), np.uint8)
    seen = raster.face >= 0
    faces = raster.face[seen]
    iuv[seen, 0] = body.face_part[faces]
    uv = np.einsum("pk,pkc->pc", raster.barycentric[seen], body.face_uv[faces])
    iuv[seen, 1:] = np.round(np.clip(uv, 0, 1) * 255)
    return iuv


def mesh_flow(
    faces: Int[np.ndarray, "F 3"],
    raster: Raster,
    next_vertices: Float[np.ndarray, "V 3"],
    next_raster: Raster,
    next_focal_px: float,
    next_center_px: tuple[float, float],
    depth_tolerance: float = 0.02,
) -> Flow:
    """Flow of every body pixel to the next frame, Eq. 7.

    The paper takes each pixel's nearest visible mesh point; we take the point itself, by its barycentric coordinates in the
    face that the pixel sees, which is exact. A pixel is valid if that point passes the depth test of the next frame within
    `depth_tolerance` metres (the paper has no such mask)."""
    height, width = raster.face.shape
    offset, valid = np.zeros((height, width, 2)), np.zeros((height, width), bool)
    rows, columns = np.nonzero(raster.face >= 0)
    corners = next_vertices[faces[raster.face[rows, columns]]]
    points, depth = project(np.einsum("pk,pkc->pc", raster.barycentric[rows, columns], corners), next_focal_px, next_center_px)
    x, y = np.floor(points).astype(int).T
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (depth > 0)
    seen = next_raster.depth[y.clip(0, height - 1), x.clip(0, width - 1)]
    visible = inside & (depth <= seen + depth_tolerance) & np.isfinite(seen)
    here = np.stack([columns, rows], 1) + 0.5
    offset[rows, columns] = np.where(visible[:, None], (points - here) / [width, height], 0)
    valid[rows, columns] = visible
    return Flow(offset, valid)
