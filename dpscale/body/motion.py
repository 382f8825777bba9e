"""Motion capture on the embedded body: recordings of the DeepMimic project, as pybullet ships them.

The recordings are read from the installed package ``pybullet_data`` (zlib licence); they are not part of dpscale."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dpscale.body import rotations as rot
from dpscale.body.camera import Viewpoint
from dpscale.body.parametric import BodyModel, ShapedBody
from dpscale.data.types import InputError

_AXES = np.array([[0, 0, -1.0], [-1, 0, 0], [0, 1, 0]])
"""DeepMimic's axes (x forward, y up, z right) -> the body's (facing -y, left +x, up z)."""

_JOINTS = {"chest": (8, 4), "neck": (12, 4), "rhip": (16, 4), "rknee": (20, 1), "rankle": (21, 4), "rshoulder": (25, 4), "relbow": (29, 1),
           "lhip": (30, 4), "lknee": (34, 1), "lankle": (35, 4), "lshoulder": (39, 4), "lelbow": (43, 1)}  # fmt: skip
"""Joint -> first column in a recording's frame, and how many (4: quaternion, 1: angle about the joint's axis)."""

_REFERENCE_LEG_M = 0.85
"""Hip height of DeepMimic's humanoid at rest."""


@dataclass(frozen=True)
class WorldMotion:
    """A body's movement in a world with z up."""

    rotations: Float[np.ndarray, "N B 3 3"]
    root: Float[np.ndarray, "N 3"]

    def seen_from(self, viewpoint: Viewpoint) -> WorldMotion:
        """The same movement in the camera's axes."""
        return WorldMotion(viewpoint.rotation @ self.rotations, viewpoint.to_camera(self.root))

    def turned(self, yaw: float) -> WorldMotion:
        """Turned about the vertical axis, in radians."""
        turn = rot.about_z(yaw)
        return WorldMotion(turn @ self.rotations, self.root @ turn.T)


@dataclass(frozen=True)
class _Recording:
    joints: dict[str, Float[np.ndarray, "N 3 3"]]
    pelvis: Float[np.ndarray, "N 3 3"]
    position: Float[np.ndarray, "N 3"]


def motion_file(name: str) -> Path:
    """The recording `name`. Raises InputError that lists the known ones, or names the missing package."""
    spec = importlib.util.find_spec("pybullet_data")
    if spec is None or spec.origin is None:
        raise InputError("motion capture needs the package pybullet: run `make setup`, or `pip install --no-deps -r requirements-data.txt`")
    folder = Path(spec.origin).parent / "data" / "motions"
    path = folder / f"humanoid3d_{name}.txt"
    if not path.is_file():
        known = sorted(p.stem.removeprefix("humanoid3d_") for p in folder.glob("humanoid3d_*.txt"))
        raise InputError(f"motion {name!r} is not in pybullet_data; known are {', '.join(known)}")
    return path


def load_motion(
    name: str, body: BodyModel, shaped: ShapedBody, fps: float, num_frames: int, start_s: float = 0.0, in_place: bool = True
) -> WorldMotion:
    """The recording `name` on a body: `num_frames` frames at `fps` from `start_s`, facing -y on average, centred on the origin.

    A recording that loops goes on; another runs forth and back. `in_place` takes away its mean displacement."""
    recording = _resample(json.loads(motion_file(name).read_text()), fps, num_frames, start_s, in_place)
    hip = body.bone_index["upperleg01.L"]
    leg = shaped.bone_scales[hip] * (shaped.heads[hip, 2] - shaped.vertices[:, 2].min())
    return WorldMotion(_retarget(body, shaped, recording), recording.position * (leg / _REFERENCE_LEG_M))


def standing_on_floor(motion: WorldMotion, posed: Float[np.ndarray, "N V 3"]) -> WorldMotion:
    """Moved vertically so that the lowest points of `posed`, its own mesh, touch z = 0 most of the time."""
    floor = np.percentile(posed[:, :, 2].min(1), 5)
    return replace(motion, root=motion.root - [0, 0, floor])


def _resample(recording: dict, fps: float, num_frames: int, start_s: float, in_place: bool) -> _Recording:
    frames = np.array(recording["Frames"], float)
    durations = frames[:, 0]
    times = np.concatenate([[0], np.cumsum(durations[:-1])])
    length = times[-1]
    wanted = start_s + np.arange(num_frames) / fps
    loops = recording.get("Loop") == "wrap"
    cycle, phase = np.divmod(wanted, length) if loops else (np.zeros_like(wanted), np.abs(np.mod(wanted + length, 2 * length) - length))
    index = np.clip(np.searchsorted(times, phase, "right") - 1, 0, len(times) - 2)
    weight = (phase - times[index]) / (times[index + 1] - times[index])

    def interpolate(matrices: np.ndarray) -> np.ndarray:
        step = rot.to_vector(np.swapaxes(matrices[index], -1, -2) @ matrices[index + 1])
        return matrices[index] @ rot.from_vector(step * weight[:, None])

    joints = {}
    for joint, (column, count) in _JOINTS.items():
        local = rot.from_quaternion(frames[:, column : column + 4]) if count == 4 else rot.about_z(frames[:, column])
        joints[joint] = interpolate(_AXES @ local @ _AXES.T)
    pelvis, path = _AXES @ rot.from_quaternion(frames[:, 4:8]) @ _AXES.T, frames[:, 1:4] @ _AXES.T
    heading = pelvis @ [0, -1.0, 0]
    turn = rot.about_z(-np.arctan2(heading[:, 0].mean(), -heading[:, 1].mean()))
    pelvis, path = turn @ pelvis, path @ turn.T
    position = path[index] * (1 - weight[:, None]) + path[index + 1] * weight[:, None]
    drift = (path[-1] - path[0]) * [1, 1, 0]
    if loops:
        position += cycle[:, None] * drift
        if in_place:
            position -= np.outer(wanted / length, drift)
    position[:, :2] -= (position[:, :2].max(0) + position[:, :2].min(0)) / 2
    return _Recording(joints, interpolate(pelvis), position)


def _retarget(body: BodyModel, shaped: ShapedBody, recording: _Recording) -> Float[np.ndarray, "N B 3 3"]:
    """Global rotation of every bone. The recording's rest pose has arms and legs straight down, the body's has not."""
    joints, pelvis = recording.joints, recording.pelvis
    chest = pelvis @ joints["chest"]
    head = chest @ joints["neck"]
    target = {
        "root": pelvis, "spine05": pelvis @ rot.fraction(joints["chest"], 0.3), "spine04": pelvis @ rot.fraction(joints["chest"], 0.6),
        "spine03": chest, "spine02": chest, "spine01": chest, "neck01": chest @ rot.fraction(joints["neck"], 0.3),
        "neck02": chest @ rot.fraction(joints["neck"], 0.5), "neck03": chest @ rot.fraction(joints["neck"], 0.75), "head": head,
    }  # fmt: skip
    for side in "LR":
        target |= _limbs(body, shaped, joints, pelvis, chest, side)
    every = np.empty((len(pelvis), len(body.bone_names), 3, 3))
    for bone, name in enumerate(body.bone_names):
        parent = body.parents[bone]
        every[:, bone] = target[name] if name in target else (every[:, parent] if parent >= 0 else pelvis)
    return every


def _limbs(body: BodyModel, shaped: ShapedBody, joints: dict, pelvis: np.ndarray, chest: np.ndarray, side: str) -> dict[str, np.ndarray]:
    def to_straight_down(start: str, end: str) -> np.ndarray:
        direction = shaped.heads[body.bone_index[f"{end}.{side}"]] - shaped.heads[body.bone_index[f"{start}.{side}"]]
        return rot.between(direction, np.array([0, 0, -1.0]))

    of = side.lower()
    upper_arm, lower_arm = to_straight_down("upperarm01", "lowerarm01"), to_straight_down("lowerarm01", "wrist")
    upper_leg, lower_leg = to_straight_down("upperleg01", "lowerleg01"), to_straight_down("lowerleg01", "foot")
    shoulder, hip = chest @ joints[of + "shoulder"], pelvis @ joints[of + "hip"]
    elbow, knee = shoulder @ joints[of + "elbow"], hip @ joints[of + "knee"]
    raised = joints[of + "shoulder"] @ upper_arm
    limbs = {"clavicle": chest @ rot.fraction(raised, 0.12), "shoulder01": chest @ rot.fraction(raised, 0.3), "pelvis": pelvis,
             "foot": knee @ joints[of + "ankle"]}  # fmt: skip
    limbs |= dict.fromkeys(("upperarm01", "upperarm02"), shoulder @ upper_arm) | dict.fromkeys(("upperleg01", "upperleg02"), hip @ upper_leg)
    limbs |= dict.fromkeys(("lowerarm01", "lowerarm02", "wrist"), elbow @ lower_arm) | dict.fromkeys(("lowerleg01", "lowerleg02"), knee @ lower_leg)
    return {f"{name}.{side}": rotation for name, rotation in limbs.items()}
