"""Driving sequences: somebody else's movement with the reference performer's body, in the reference performer's camera.

(pose_n, shape_ref, camera_n) of METHOD 5.2; the camera is the reference performer's, because the picture to make is his."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from dpscale.body.camera import project
from dpscale.body.motion import load_motion
from dpscale.body.parametric import BodyModel, ShapedBody
from dpscale.data.types import BodyMotion, BodyShape

_LEG = ("upperleg01.L", "lowerleg01.L", "foot.L")
_FLESH_M, _HEAD_M = 0.12, 0.25
"""Most that the surface lies outside the joints, for the body and for the head."""
_BORDER = 0.02
_STRETCHED = 0.9
"""Quantile of the distance from ankles to neck above which a body counts as stretched."""
_SHRINK = (1.0, 0.75, 0.5, 0.25, 0.0)


@dataclass(frozen=True)
class Movement:
    """A fitted movement: whose, and how fast its frames follow each other."""

    shape: BodyShape
    motion: BodyMotion
    fps: float


def drive_by_movement(body: BodyModel, reference: Movement, driver: Movement, size: int) -> BodyMotion:
    """The driver's movement on the reference performer's body, on the spot where the reference performer mostly stands."""
    ours, theirs = body.shaped(reference.shape), body.shaped(driver.shape)
    path = (driver.motion.root - np.median(driver.motion.root, 0)) * (_leg_length(body, ours) / _leg_length(body, theirs))
    return _placed(body, reference, driver.motion.rotations.astype(float), path, size)


def drive_by_recording(body: BodyModel, reference: Movement, recording: str, num_frames: int, fps: float, size: int) -> BodyMotion:
    """A motion-capture recording on the reference performer's body, upright in his camera and facing where he mostly faces.

    Raises InputError if there is no such recording."""
    shaped = body.shaped(reference.shape)
    world = load_motion(recording, body, shaped, fps, num_frames)
    to_camera = _camera_from_world(body, reference)
    path = (world.root - np.median(world.root, 0)) @ to_camera.T
    return _placed(body, reference, to_camera @ world.rotations, path, size)


def _placed(body: BodyModel, reference: Movement, rotations: Float[np.ndarray, "N B 3 3"], path: Float[np.ndarray, "N 3"], size: int) -> BodyMotion:
    """Rotations and a path about the origin -> where the reference performer stands, feet on his floor, inside the picture."""
    shaped, up = body.shaped(reference.shape), _up(body, reference)
    root = path + np.median(reference.motion.root, 0)
    lift = _floor(body, shaped, rotations, root, up) - _floor(body, shaped, reference.motion.rotations, reference.motion.root, up)
    motion = replace(reference.motion, rotations=rotations, root=root - lift * up)
    return _inside(body, shaped, motion, size)


def _up(body: BodyModel, reference: Movement) -> Float[np.ndarray, " 3"]:
    """Up in the reference's camera: from the ankles to the neck where they are farthest apart, because a stretched body stands
    upright. A camera may look down but hardly rolls."""
    joints = body.joint_positions(body.shaped(reference.shape), reference.motion.rotations, reference.motion.root)
    ankles = joints[:, [body.bone_index["foot.L"], body.bone_index["foot.R"]]].mean(1)
    line = joints[:, body.bone_index["neck01"]] - ankles
    length = np.linalg.norm(line, axis=1)
    stretched = line[length >= np.quantile(length, _STRETCHED)]
    up = (stretched / np.linalg.norm(stretched, axis=1, keepdims=True)).mean(0) * [0, 1, 1]
    return up / np.linalg.norm(up)


def _camera_from_world(body: BodyModel, reference: Movement) -> Float[np.ndarray, "3 3"]:
    """Columns: left, back and up of a body that faces as the reference performer does on average (recordings face -y)."""
    up = _up(body, reference)
    front = (reference.motion.rotations[:, 0] @ [0, -1.0, 0]).mean(0)
    front -= up * (front @ up)
    front = front / np.linalg.norm(front) if np.linalg.norm(front) > 0.1 else np.array([0, 0, -1.0])
    return np.stack([np.cross(-front, up), -front, up], 1)


def _floor(body: BodyModel, shaped: ShapedBody, rotations: np.ndarray, root: np.ndarray, up: Float[np.ndarray, " 3"]) -> float:
    """Height along `up` that the lowest joint touches most of the time."""
    joints = body.joint_positions(shaped, rotations, root)
    return float(np.percentile((joints @ up).min(1), 5))


def _leg_length(body: BodyModel, shaped: ShapedBody) -> float:
    joints = [body.bone_index[name] for name in _LEG]
    return float(sum(shaped.bone_scales[a] * np.linalg.norm(shaped.heads[b] - shaped.heads[a]) for a, b in pairwise(joints)))


def _inside(body: BodyModel, shaped: ShapedBody, motion: BodyMotion, size: int) -> BodyMotion:
    """The body kept inside the picture: its path shifted, then narrowed, and at last moved away from the camera."""
    middle, room = np.median(motion.root, 0), size * (1 - 2 * _BORDER)
    for shrink in _SHRINK:
        narrowed = replace(motion, root=middle + (motion.root - middle) * shrink)
        low, high = _extent(body, shaped, narrowed)
        if (high - low).max() <= room:
            return _shifted(body, shaped, narrowed, size)
    away = replace(narrowed, root=narrowed.root * ((high - low).max() / room))
    return _shifted(body, shaped, away, size)


def _shifted(body: BodyModel, shaped: ShapedBody, motion: BodyMotion, size: int) -> BodyMotion:
    for _ in range(4):
        low, high = _extent(body, shaped, motion)
        border = _BORDER * size
        move = np.maximum(border - low, 0) + np.minimum(size - border - high, 0)
        step = np.append(move, 0) * np.median(motion.root[:, 2]) / motion.focal_px
        motion = replace(motion, root=motion.root + step)
    return motion


def _extent(body: BodyModel, shaped: ShapedBody, motion: BodyMotion) -> tuple[Float[np.ndarray, " 2"], Float[np.ndarray, " 2"]]:
    """Corners in px of the square that holds the body in all frames."""
    joints = body.joint_positions(shaped, motion.rotations, motion.root)
    points, depth = project(joints, motion.focal_px, motion.center_px)
    around = np.full(joints.shape[1], _FLESH_M)
    around[[i for name, i in body.bone_index.items() if name.startswith(("head", "eye"))]] = _HEAD_M
    reach = (around * motion.focal_px / depth)[..., None]
    return (points - reach).min((0, 1)), (points + reach).max((0, 1))
