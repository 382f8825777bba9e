"""What the user's meshes say about the pixels of a crop: where the body is, and its 3D-aware human flow (METHOD 5; Eq. 7).

As for the fitted body, a pixel has its own surface point and counts only if that point passes the depth test in both frames. Each frame
keeps its own camera: a mesh is projected through that of its own frame, so a camera that moves or zooms moves the body."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, UInt8

from dpscale.body.camera import project
from dpscale.body.raster import Raster, rasterise
from dpscale.body.surface_maps import Flow, mesh_flow
from dpscale.data.types import InputError
from dpscale.preprocess.crop import Crop
from dpscale.preprocess.iuv_flow import ClipFlow
from dpscale.preprocess.mesh_arrays import MeshSequence

_LEAST_OVERLAP = 0.4
"""Of mesh and silhouette, intersection over union. Bare bodies of rendered performers reach 0.91 and more; upside down, mirrored or another
frame's, 0.2 to 0.5; 30 % too large, 0.5. Loose clothes must pass, so passing is no proof."""


def mesh_coverage(sequence: MeshSequence, n: int, crop: Crop, size: int) -> Bool[np.ndarray, "S S"]:
    """Pixels of the crop, drawn at `size` x `size` px, whose centre the mesh of frame n covers."""
    return rasterised(sequence, n, crop, size).raster.face >= 0


def mesh_flow_of(sequence: MeshSequence, n: int, crop: Crop, size: int) -> Flow:
    """Human flow n -> n+1 in the crop, drawn at `size` x `size` px. Of the last frame: zero, and nowhere valid."""
    here = rasterised(sequence, n, crop, size)
    if n + 1 == len(sequence):
        return Flow(np.zeros((size, size, 2)), np.zeros((size, size), bool))
    return _flow(sequence, here, rasterised(sequence, n + 1, crop, size))


def mesh_clip_flow(sequence: MeshSequence, start: int, count: int, crop: Crop, size: int) -> ClipFlow:
    """`mesh_flow_of` frames start .. start + count - 1, two meshes at a time in memory, each drawn once."""
    flow, valid = np.zeros((count, size, size, 2), np.float16), np.zeros((count, size, size), bool)
    here = rasterised(sequence, start, crop, size)
    for k in range(min(count, len(sequence) - 1 - start)):
        there = rasterised(sequence, start + k + 1, crop, size)
        step = _flow(sequence, here, there)
        flow[k], valid[k], here = step.offset, step.valid, there
    return ClipFlow(flow, valid)


def overlap_with_person(sequence: MeshSequence, start: int, crop: Crop, masks: UInt8[np.ndarray, "N S S"]) -> float:
    """Intersection over union of the meshes of frames start, start + 1, ... and the person of `masks` (0..255 in the crop): the median over
    frames in which the person was found, 1 without any. Raises InputError if they hardly overlap: other axes, camera, frames or person."""
    overlaps = []
    for n, mask in enumerate(masks, start):
        mesh, person = mesh_coverage(sequence, n, crop, len(mask)), mask > 127
        overlaps += [(mesh & person).sum() / (mesh | person).sum()] if person.any() else []
    overlap = float(np.median(overlaps)) if overlaps else 1.0
    if overlap < _LEAST_OVERLAP:
        raise InputError(
            f"{sequence.path}: the meshes do not lie on the person in the picture (overlap {overlap:.2f} of 1): check that y points down and z "
            "forward, the camera, that frame n is the clip's frame n, and that it is the same person (performers.person)"
        )
    return overlap


@dataclass(frozen=True)
class SeenMesh:
    """A frame's mesh and what each pixel of the crop sees of it; camera in px of the crop."""

    vertices: Float[np.ndarray, "V 3"]
    raster: Raster
    focal_px: float
    center_px: tuple[float, float]


def rasterised(sequence: MeshSequence, n: int, crop: Crop, size: int) -> SeenMesh:
    """The mesh of frame n, projected through its own camera into the crop drawn at `size` x `size` px."""
    mesh = sequence.frame(n)
    focal, center = replace(crop, size=size).camera(mesh.focal_px, mesh.center_px)
    points, depth = project(mesh.vertices, focal, center)
    return SeenMesh(mesh.vertices, rasterise(points, depth, sequence.faces, size, size), focal, center)


def _flow(sequence: MeshSequence, here: SeenMesh, there: SeenMesh) -> Flow:
    return mesh_flow(sequence.faces, here.raster, there.vertices, there.raster, there.focal_px, there.center_px)
