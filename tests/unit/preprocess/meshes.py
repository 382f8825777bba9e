"""Mesh files of things whose flow is known."""

from pathlib import Path

import numpy as np

from dpscale.body.parametric import load_body
from dpscale.body.rendered import RenderedClip, person
from dpscale.preprocess.crop import Crop

_SIDES = ((1, 3, 2, 0), (6, 7, 5, 4), (4, 5, 1, 0), (3, 7, 6, 2), (2, 6, 4, 0), (5, 7, 3, 1))
BOX_FACES = np.array([face for a, b, c, d in _SIDES for face in ((a, b, c), (a, c, d))])
"""Outward."""


def box_vertices(half_m: float = 0.4) -> np.ndarray:
    """Eight corners of a cube about the origin."""
    return np.array([[x, y, z] for x in (-half_m, half_m) for y in (-half_m, half_m) for z in (-half_m, half_m)])


def box_arrays(num_frames: int = 12, depth_m: float = 4.0) -> dict[str, np.ndarray]:
    """A cube that stands still in the middle of a picture of 640 x 480 px."""
    vertices = np.tile(box_vertices().astype(np.float32), (num_frames, 1, 1))
    root = np.tile([0.0, 0.0, depth_m], (num_frames, 1))
    return {"vertices": vertices, "root": root, "faces": BOX_FACES, "focal_px": np.array(600.0), "image_size": np.array([480, 640])}


def rendered_vertices(clip: RenderedClip, seed: int) -> np.ndarray:
    """What `clip` was drawn from, [N, V, 3], without the root's position."""
    who, motion = person(seed), clip.pose.motion
    return load_body().skin(who.shaped, motion.rotations, np.zeros_like(motion.root), who.dressed.vertices)


def rendered_arrays(clip: RenderedClip, seed: int, crop: Crop, picture: tuple[int, int]) -> dict[str, np.ndarray]:
    """The meshes of a rendered performer in a picture (height, width) of which the clip is that crop."""
    motion = clip.pose.motion
    return {
        "vertices": rendered_vertices(clip, seed).astype(np.float32),
        "root": motion.root,
        "faces": load_body().faces.astype(np.uint32),
        "focal_px": np.array(motion.focal_px / crop.scale),
        "center_px": np.array(motion.center_px) / crop.scale + [crop.left, crop.top],
        "image_size": np.array(picture),
    }


def saved(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(path, **arrays)
    return path
