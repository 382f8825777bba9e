"""Keypoints that OpenPose has written: one JSON file a frame, with everybody in it.

File names are NAME_000000000012_keypoints.json, where the number is the frame's. BODY_25 and COCO models are read; a keypoint that
OpenPose did not find has confidence 0."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from dpscale.data.types import OPENPOSE18, InputError
from dpscale.preprocess.people import People, Person, choose_person, landmark_box, track_people
from dpscale.preprocess.smoothing import filled

_NAME = re.compile(r"(?P<video>.*?)_?(?P<number>\d+)_keypoints\.json")
_FIELDS = ("pose_keypoints_2d", "pose_keypoints")
_ORDER = {54: list(range(18)), 75: [*range(8), *range(9, 19)]}
"""Numbers per person -> the place of OPENPOSE18's keypoints among them: BODY_25 adds the middle of the hips (8) and the feet (19 ..)."""
_FILLED_CONFIDENCE = 0.05
"""Confidence of interpolated keypoints, over that of what they lie between: below what is drawn."""
_BOX_CONFIDENCE = 0.1
_REWRITE = "write it again with `openpose --write_json FOLDER --keypoint_scale 0`"


@dataclass(frozen=True)
class KeypointTrack:
    """One person in all frames of a video."""

    keypoints: Float[np.ndarray, "N 18 3"]
    """x, y in px of the full picture and confidence 0..1, in OPENPOSE18's order; of low confidence where interpolated, 0 if never seen."""
    found: Bool[np.ndarray, " N"]
    note: str | None
    """Choice.note."""

    def __len__(self) -> int:
        return len(self.keypoints)


def read_openpose(folder: Path, num_frames: int, first_number: int = 0) -> list[Float[np.ndarray, "_ 18 3"] | None]:
    """Everybody in frames 0 .. num_frames-1, in the order of the files; None for a frame without a file.

    `first_number` is the number of frame 0. Files of later frames are not read. Raises InputError, naming file and field."""
    files = _files(folder)
    people = [_people_in(files[n]) if n in files else None for n in range(first_number, first_number + num_frames)]
    known = [frame for frame in people if frame is not None]
    if not known:
        low, high = min(files), max(files)
        raise InputError(
            f"{folder}: numbers in the file names are {low} to {high}, none from {first_number} to {first_number + num_frames - 1}: "
            "number the files as the frames of the video"
        )
    farthest = max((float(np.abs(frame[..., :2]).max()) for frame in known if len(frame)), default=np.inf)
    if farthest <= 1:
        raise InputError(f"{folder}: {_FIELDS[0]}: places are parts of the picture, px are needed: {_REWRITE}")
    return people


def follow_openpose(folder: Path, num_frames: int, width: int, person: int | None, min_detected: float, first_number: int = 0) -> KeypointTrack:
    """The track of person `person` (none: the most prominent) through a video `width` px wide.

    Raises InputError if there is no such person, or one in less than the part `min_detected` of the frames."""
    everyone = read_openpose(folder, num_frames, first_number)
    choice = choose_person(str(folder), people_of(everyone, width), person)
    track = keypoints_of(everyone, choice.person, choice.note)
    if track.found.sum() < min_detected * num_frames:
        raise InputError(
            f"{folder}: person {choice.number} is in {track.found.sum()} of {num_frames} frames, preprocess.min_detected asks for "
            f"{min_detected:.0%}: run OpenPose on all frames of the video, or lower preprocess.min_detected"
        )
    return track


def people_of(everyone: Sequence[Float[np.ndarray, "_ 18 3"] | None], width: int) -> People:
    """People followed through the frames, by the boxes around their keypoints."""
    boxes = [None if frame is None else np.array([landmark_box(one, _BOX_CONFIDENCE) for one in frame]).reshape(-1, 4) for frame in everyone]
    return track_people(boxes, width)


def keypoints_of(everyone: Sequence[Float[np.ndarray, "_ 18 3"] | None], person: Person, note: str | None = None) -> KeypointTrack:
    """The person's keypoints in all frames; what is not known is linear in time between what is, with low confidence."""
    raw = np.zeros((len(everyone), len(OPENPOSE18), 3))
    for frame, row in zip(person.frames.tolist(), person.rows.tolist(), strict=True):
        if (known := everyone[frame]) is not None:
            raw[frame] = known[row]
    found = np.zeros(len(everyone), bool)
    found[person.frames] = True
    return KeypointTrack(_without_gaps(raw), found, note)


def _without_gaps(raw: Float[np.ndarray, "N 18 3"]) -> Float[np.ndarray, "N 18 3"]:
    known = raw[..., 2] > 0
    whole = filled(raw, known.astype(float), 0.5)
    whole[..., 2] *= np.where(known, 1.0, _FILLED_CONFIDENCE)
    never = ~known.any(0)
    # At (0, 0) they would stretch every box around the person.
    whole[:, never, :2] = whole[:, ~never, :2].mean(1, keepdims=True) if not never.all() else 0.0
    return whole


def _files(folder: Path) -> dict[int, Path]:
    """Number -> file. Raises InputError unless they are of one video."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder: give the folder that `openpose --write_json` wrote")
    named = [(match, path) for path in sorted(folder.iterdir()) if (match := _NAME.fullmatch(path.name))]
    if not named:
        raise InputError(f"{folder}: holds no files named NAME_000000000000_keypoints.json: give the folder that `openpose --write_json` wrote")
    videos = sorted({match["video"] for match, _ in named})
    if len(videos) > 1:
        raise InputError(f"{folder}: holds files of several videos ({', '.join(videos[:3])}): give each video a folder of its own")
    files: dict[int, Path] = {}
    for match, path in named:
        other = files.setdefault(int(match["number"]), path)
        if other != path:
            raise InputError(f"{path}: has the same frame number as {other.name}: delete one of them")
    return files


def _people_in(path: Path) -> Float[np.ndarray, "P 18 3"]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error}): {_REWRITE}") from error
    people = content.get("people") if isinstance(content, dict) else None
    if not isinstance(people, list):
        raise InputError(f"{path}: people: a list is needed: {_REWRITE}")
    found = [_person(path, k, person) for k, person in enumerate(people)]
    return np.array([one for one in found if (one[:, 2] > 0).any()]).reshape(-1, len(OPENPOSE18), 3)


def _person(path: Path, index: int, person: object) -> Float[np.ndarray, "18 3"]:
    """One entry of `people`; keypoints that were not found are zero throughout."""
    field = next((name for name in _FIELDS if isinstance(person, dict) and name in person), None)
    if field is None or not isinstance(person, dict):
        raise InputError(f"{path}: people[{index}]: has no {_FIELDS[0]}: {_REWRITE}")
    place = f"{path}: people[{index}].{field}"
    try:
        numbers = np.array(person[field], float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{place}: must be a list of numbers: {_REWRITE}") from error
    if numbers.ndim != 1 or len(numbers) not in _ORDER:
        raise InputError(f"{place}: {numbers.size} numbers, where 75 (BODY_25) or 54 (COCO) are needed: run OpenPose with one of these models")
    keypoints = numbers.reshape(-1, 3)[_ORDER[len(numbers)]]
    if not np.isfinite(keypoints).all():
        raise InputError(f"{place}: has a number that is not finite: {_REWRITE}")
    keypoints[:, 2] = keypoints[:, 2].clip(0, 1)
    keypoints[keypoints[:, 2] == 0] = 0
    return keypoints
