"""The mesh of every frame: the fitted body (constant topology) in front of its camera."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dpscale.body.camera import project
from dpscale.body.parametric import BodyModel, ShapedBody
from dpscale.body.raster import Raster
from dpscale.body.surface_maps import rasterise_body
from dpscale.data.types import BodyMotion


@dataclass(frozen=True)
class MeshFrame:
    """One frame's mesh and what each pixel sees of it."""

    vertices: Float[np.ndarray, "V 3"]
    raster: Raster


def mesh_frames(
    body: BodyModel, shaped: ShapedBody, motion: BodyMotion, size: int, surface: Float[np.ndarray, "V 3"] | None = None
) -> Iterator[MeshFrame]:
    """Posed and rasterised meshes, one frame at a time. `surface` replaces the bare rest surface (clothes of a rendered performer)."""
    for rotations, root in zip(motion.rotations, motion.root, strict=True):
        vertices = body.skin(shaped, rotations[None].astype(float), root[None].astype(float), surface)[0]
        yield MeshFrame(vertices, rasterise_body(body, vertices, motion.focal_px, motion.center_px, size, size))


def mesh_keypoints(body: BodyModel, shaped: ShapedBody, motion: BodyMotion, size: int) -> Float[np.ndarray, "N 18 3"]:
    """OpenPose-18 of the mesh, in px; confidence 1 inside the picture, 0 outside."""
    posed = (body.skin(shaped, r[None].astype(float), t[None].astype(float))[0] for r, t in zip(motion.rotations, motion.root, strict=True))
    points = np.stack([project(body.keypoints(vertices[None])[0], motion.focal_px, motion.center_px)[0] for vertices in posed])
    inside = ((points >= 0) & (points < size)).all(-1, keepdims=True)
    return np.concatenate([points, inside], -1).astype(np.float32)
