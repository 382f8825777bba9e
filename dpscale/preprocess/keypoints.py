"""Follows one person through a video: 33 landmarks a frame, and OpenPose's 18 from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from dpscale.data.types import InputError
from dpscale.preprocess.blazepose import NUM_LANDMARKS, BlazePose, Reading, Roi
from dpscale.preprocess.decode import MIN_FRAMES
from dpscale.preprocess.people import iou, landmark_box
from dpscale.preprocess.sides import mirrored, mirrored_frames, undecided_frames
from dpscale.preprocess.silhouettes import Silhouette

_OPENPOSE_FROM_LANDMARKS = (0, (11, 12), 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7)
_INTERPOLATED_CONFIDENCE = 0.05
_SEEN = 0.5
_SAME_PERSON_IOU = 0.15
"""Boxes between looks are interpolated, so they need not fit well; another person's hardly overlaps."""
_HEAD_RADIUS = 0.35
"""Of a ball around the face that holds the head, over the length of the torso."""


@dataclass(frozen=True)
class PersonTrack:
    """One person in all frames of a video."""

    landmarks: Float[np.ndarray, "N 33 3"]
    """x, y in px of the full picture and visibility 0..1; low where interpolated."""
    world: Float[np.ndarray, "N 33 3"]
    """Metres from the middle of the hips, camera axes."""
    found: Bool[np.ndarray, " N"]
    silhouettes: tuple[Silhouette | None, ...]
    """None where nobody was found."""
    scale: float
    """px of the full picture per px of the one that was looked at."""

    def __len__(self) -> int:
        return len(self.landmarks)

    def openpose18(self) -> Float[np.ndarray, "N 18 3"]:
        """OpenPose's keypoints; the neck is the middle of the shoulders."""
        parts = [self.landmarks[:, list(np.atleast_1d(index))] for index in _OPENPOSE_FROM_LANDMARKS]
        return np.stack([np.concatenate([p[..., :2].mean(1), p[..., 2:].min(1)], -1) for p in parts], 1)

    def extent(self) -> Float[np.ndarray, "P 2"]:
        """Points that the picture must hold: every landmark seen in a frame where the person was found, and the whole head."""
        seen = self.landmarks[self.found]
        torso = np.linalg.norm(seen[:, 11:13, :2].mean(1) - seen[:, 23:25, :2].mean(1), axis=-1).max()
        head = seen[:, :9, :2].mean(1)[:, None] + _HEAD_RADIUS * torso * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
        return np.concatenate([seen[..., :2][seen[..., 2] > _SEEN], head.reshape(-1, 2)])


def track_person(
    source: str,
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    blazepose: BlazePose,
    min_detected: float,
    scale: float = 1.0,
    boxes: Float[np.ndarray, "N 4"] | None = None,
) -> PersonTrack:
    """Follows one person: the one in `boxes` (px of `frames`), or the one nearest the camera. `scale` turns px of `frames` into px of the
    full picture.

    Frames without the person, or where its front and back cannot be told apart, are interpolated with low confidence. Raises
    InputError, naming `source`, if there are fewer than two frames or the person is found in less than the part `min_detected` of them."""
    readings: list[_Seen | None] = []
    roi: Roi | None = None
    for n, frame in enumerate(frames):
        reading = _read(frame, blazepose, roi, None if boxes is None else boxes[min(n, len(boxes) - 1)])
        roi = reading.next_roi if reading else None
        readings.append(_Seen(reading.landmarks, reading.world, Silhouette.of(reading)) if reading else None)
    return _filled(source, readings, min_detected, scale)


@dataclass(frozen=True)
class _Seen:
    """What stays of a reading."""

    landmarks: Float[np.ndarray, "33 3"]
    world: Float[np.ndarray, "33 3"]
    silhouette: Silhouette


def _read(frame: np.ndarray, blazepose: BlazePose, roi: Roi | None, box: np.ndarray | None) -> Reading | None:
    """The person in `roi`, if it is still the one in `box`; or else whoever is there, or nearest the camera. A detected person is looked
    at twice, because the detector's square is a coarse one."""
    reading = blazepose.read(frame, roi) if roi else None
    if reading is not None and _is_in(reading, box):
        return reading
    for detected in blazepose.detect(frame):
        coarse = blazepose.read(frame, detected)
        reading = blazepose.read(frame, coarse.next_roi) if coarse else None
        if reading is not None and _is_in(reading, box):
            return reading
    return None


def _is_in(reading: Reading, box: np.ndarray | None) -> bool:
    return box is None or float(iou(landmark_box(reading.landmarks)[None], box[None])[0, 0]) > _SAME_PERSON_IOU


def _filled(source: str, readings: list[_Seen | None], min_detected: float, scale: float) -> PersonTrack:
    found = np.array([r is not None for r in readings], bool)
    if len(found) < MIN_FRAMES:
        raise InputError(f"{source}: number of frames is {len(found)}, at least {MIN_FRAMES} are needed: give a video of a moving person")
    if found.sum() < max(1, min_detected * len(found)):
        share = "no person was found" if not found.any() else f"a person was found in {found.sum()} of {len(found)} frames"
        raise InputError(
            f"{source}: {share}, preprocess.min_detected asks for {min_detected:.0%} of the frames: film one person, head to feet and well lit, "
            "or lower preprocess.min_detected"
        )
    known, world = np.stack([r.landmarks for r in readings if r]), np.stack([r.world for r in readings if r])
    sure = ~undecided_frames(world)
    known, world, found[found] = known[sure], world[sure], sure
    turned = mirrored_frames(world)
    known[turned], world[turned] = mirrored(known[turned], world[turned])
    landmarks = _interpolated(known, found)
    landmarks[~found, :, 2] *= _INTERPOLATED_CONFIDENCE
    landmarks[..., :2] *= scale
    return PersonTrack(landmarks, _interpolated(world, found), found, tuple(r.silhouette if r else None for r in readings), scale)


def _interpolated(known: Float[np.ndarray, "K 33 3"], found: Bool[np.ndarray, " N"]) -> Float[np.ndarray, "N 33 3"]:
    """Linear in time between the frames where it is known, constant before and after."""
    at, every = np.flatnonzero(found), np.arange(len(found))
    columns = [np.interp(every, at, column) for column in known.reshape(len(at), -1).T]
    return np.stack(columns, 1).reshape(len(found), NUM_LANDMARKS, 3)
