"""Reads skeleton drawings, as OpenPose and DWPose annotators make them for ControlNet: the keypoints come back out of the picture.

18 discs in 18 hues at full brightness on 17 limbs, ellipses in the same hues at 0.6 of it, on black; hands and a face may lie over
them. Give frames at the size they were drawn: below 4 px a disc is no more than a mixed edge."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from dpscale.data.types import InputError
from dpscale.preprocess.decode import MIN_FRAMES
from dpscale.preprocess.skeleton_joints import Shapes
from dpscale.preprocess.skeleton_shapes import DARK, NO_LABEL, NUM_JOINTS, colour_labels, find_sticks

_MIN_BLACK, _MIN_PALETTE = 0.7, 0.4
"""Share of black in a drawing, and of its colours in what is not black; the rest are mixed edges."""
_MIN_LIMBS = 4
_MIN_DRAWINGS = 0.8
_SURE, _COVERED = 1.0, 0.5
"""Confidence of a joint whose disc is seen, and of one that is covered but where limbs end."""
_TORSO_LIMBS = (0, 1, 6, 9)
_SECOND_PERSON = 0.5
"""Pixels of a torso limb's colour on a second line, over those on the first, from which on they are another person's."""


def is_skeleton_drawing(frames: UInt8[np.ndarray, "N H W 3"]) -> bool:
    """Whether the frames are such drawings. Black frames say nothing; if all are, the answer is no."""
    verdicts = [_is_drawing(frame) for frame in frames if frame.max() > DARK]
    return bool(verdicts) and sum(verdicts) >= _MIN_DRAWINGS * len(verdicts)


def read_skeletons(source: str, frames: Iterable[UInt8[np.ndarray, "H W 3"]], min_detected: float) -> Float[np.ndarray, "N 18 3"]:
    """OPENPOSE18 keypoints of one person, x, y in px (pixel centres at .5) and confidence: 1 where the disc is seen, 0.5 where only
    limbs tell, 0 (and x = y = 0) where nothing does.

    Raises InputError, naming `source`, if there are fewer than two frames, if less than the part `min_detected` of them shows a
    skeleton, or if two people are drawn."""
    readings = [_read(frame) for frame in frames]
    if len(readings) < MIN_FRAMES:
        raise InputError(f"{source}: number of frames is {len(readings)}, at least {MIN_FRAMES} are needed: give a drawing of a moving person")
    found = np.array([reading.num_limbs >= _MIN_LIMBS for reading in readings])
    if found.sum() < max(1, min_detected * len(readings)):
        raise InputError(
            f"{source}: a skeleton was found in {found.sum()} of {len(readings)} frames, preprocess.min_detected asks for {min_detected:.0%}: "
            "draw 18 joints and their limbs on black in ControlNet's OpenPose colours, or lower preprocess.min_detected"
        )
    crowded = np.array([reading.crowded for reading in readings])[found]
    if crowded.mean() > 0.5:
        raise InputError(f"{source}: shows more than one skeleton in {crowded.sum()} of {len(readings)} frames: draw one person alone")
    return np.stack([reading.keypoints for reading in readings]).astype(np.float32)


@dataclass(frozen=True)
class _Reading:
    keypoints: Float[np.ndarray, "18 3"]
    num_limbs: int
    crowded: bool
    """Limbs of a second torso are seen."""


def _is_drawing(frame: UInt8[np.ndarray, "H W 3"]) -> bool:
    drawn = frame.max(-1) > DARK
    if not 0 < drawn.mean() <= 1 - _MIN_BLACK:
        return False
    labels = colour_labels(frame)
    return bool((labels[drawn] != NO_LABEL).mean() >= _MIN_PALETTE) and sum(map(bool, find_sticks(labels))) >= _MIN_LIMBS


def _read(frame: UInt8[np.ndarray, "H W 3"]) -> _Reading:
    shapes = Shapes(colour_labels(frame))
    seen = shapes.joints()
    keypoints = np.zeros((NUM_JOINTS, 3))
    for joint in range(NUM_JOINTS):
        if joint in seen:
            keypoints[joint] = *seen[joint].center, _SURE
        elif (point := shapes.covered(joint, seen)) is not None:
            keypoints[joint] = *point, _COVERED
    torso = [shapes.sticks[limb] for limb in _TORSO_LIMBS]
    twice = [len(sticks) > 1 and sticks[1].area > _SECOND_PERSON * sticks[0].area for sticks in torso]
    return _Reading(keypoints, sum(map(bool, shapes.sticks)), sum(twice) >= 2)
