"""Who is in a video: boxes around people, frame by frame, become people; one of them is chosen.

Boxes are x0, y0, x1, y1 in px of the picture and may come from any detector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy.optimize import linear_sum_assignment

from dpscale.data.types import InputError
from dpscale.preprocess.blazepose import BlazePose, Reading, Roi

_MAX_COST = 2.0
"""Of a box that continues a person: at most one person's size away from where it is expected, without overlap and change of size."""
_SAME_PERSON_IOU = 0.5
_MEMORY = 4
"""Sightings from which a person's velocity is taken: detectors tremble."""
_SLOWING = 0.9
"""Of the expected velocity per frame without a sighting: nobody runs on for ever."""
_MIN_SHARE = 0.25
"""Of the frames looked at: who is in fewer is a passer-by or a detector's mistake."""
_CENTRAL = 0.1
"""Part of a person's prominence that being in the middle decides."""
_MIDDLE = 0.08
"""Distance to the picture's middle, over its width, up to which a person is in the middle."""
_SEEN = 0.5
_BEYOND = 0.08
"""What of a body lies beyond its landmarks, over its longer side: the top of the head is one such length above the eyes."""


@dataclass(frozen=True)
class Person:
    """Where one person was seen."""

    frames: Int[np.ndarray, " F"]
    """Numbers of the frames, ascending."""
    boxes: Float[np.ndarray, "F 4"]
    rows: Int[np.ndarray, " F"]
    """Which of the frame's detections it is."""

    def in_all_frames(self, num_frames: int) -> Float[np.ndarray, "N 4"]:
        """The box in frames 0 .. num_frames-1: linear in time between sightings, constant before and after."""
        return np.stack([np.interp(np.arange(num_frames), self.frames, side) for side in self.boxes.T], 1)


@dataclass(frozen=True)
class People:
    """Everyone in a video, the most prominent first."""

    everyone: tuple[Person, ...]
    width: int
    """Of the picture, in px."""
    num_looked: int
    """Number of frames in which people were looked for."""

    def describe(self, number: int) -> str:
        """Where person `number` (from 1) is, and in how many of the frames."""
        person = self.everyone[number - 1]
        return f"{number} ({_place(person, self.width)}, in {len(person.frames) / self.num_looked:.0%} of the frames)"


@dataclass(frozen=True)
class Choice:
    """The person that a clip is about."""

    person: Person
    number: int
    """From 1, the most prominent person."""
    note: str | None
    """What the user should know if nobody was asked for and there is more than one person."""


@dataclass(frozen=True)
class Sightings:
    """Boxes of everybody that BlazePose sees, and where its landmark network should look for them; None: nobody looked."""

    boxes: tuple[Float[np.ndarray, "_ 4"] | None, ...]
    rois: tuple[tuple[Roi, ...] | None, ...]
    width: int


def choose_person(source: str, people: People, number: int | None) -> Choice:
    """Person `number` (1: the most prominent), or the most prominent with a note. Raises InputError, naming `source`."""
    num = len(people.everyone)
    if not num:
        raise InputError(f"{source}: no person was found: film one person, head to feet and well lit")
    if number is not None and not 1 <= number <= num:
        listed = ", ".join(people.describe(k + 1) for k in range(num))
        raise InputError(
            f"{source}: person = {number}, with {_in_view(num)}: {listed}: give a number from 1 to {num}, or none for the most prominent"
        )
    note = None
    if number is None and num > 1:
        others = "2 takes the other" if num == 2 else f"2 to {num} take the others"
        place = _place(people.everyone[0], people.width)
        note = f"{_in_view(num)}: took the most prominent (person 1 of {num}, {place}); --person {others}"
    number = number or 1
    return Choice(people.everyone[number - 1], number, note)


def track_people(boxes: Sequence[Float[np.ndarray, "_ 4"] | None], width: int, max_gap: int = 30) -> People:
    """Follows everybody through the frames of a video `width` px wide, without their looks: by place, movement and size.

    None: nobody looked in that frame. Who is not seen for more than `max_gap` frames and comes back is somebody new."""
    open_tracks: list[_Track] = []
    closed: list[_Track] = []
    for frame, found in enumerate(boxes):
        if found is not None:
            closed += [track for track in open_tracks if frame - track.frames[-1] > max_gap]
            open_tracks = [track for track in open_tracks if frame - track.frames[-1] <= max_gap]
            open_tracks += _continued(open_tracks, frame, found)
    num_looked = sum(found is not None for found in boxes)
    tracks = closed + open_tracks
    lasting = [track for track in tracks if len(track.frames) >= _MIN_SHARE * num_looked]
    everyone = [Person(np.array(t.frames), np.stack(t.boxes), np.array(t.rows)) for t in lasting or tracks]
    return People(tuple(sorted(everyone, key=lambda person: -_prominence(person, width))), width, num_looked)


def blazepose_people(frames: Iterable[UInt8[np.ndarray, "H W 3"]], blazepose: BlazePose, every: int = 5) -> Sightings:
    """Looks for everybody in each `every`-th frame.

    BlazePose's detector is coarse and often silent about one of two people, so whoever was there at the last look is looked for at the
    same place, and boxes are those of landmarks."""
    boxes: list[np.ndarray | None] = []
    rois: list[tuple[Roi, ...] | None] = []
    known: tuple[Roi, ...] = ()
    width = 0
    for n, frame in enumerate(frames):
        width = frame.shape[1]
        readings = _read_everyone(frame, blazepose, known) if n % every == 0 else None
        if readings is not None:
            known = tuple(reading.next_roi for reading in readings)
        boxes.append(None if readings is None else np.array([landmark_box(reading.landmarks) for reading in readings]).reshape(-1, 4))
        rois.append(None if readings is None else known)
    return Sightings(tuple(boxes), tuple(rois), width)


def landmark_box(points: Float[np.ndarray, "K 3"], min_confidence: float = _SEEN) -> Float[np.ndarray, " 4"]:
    """The box of a body from its points (x, y, confidence) of at least that confidence; from all, if fewer than two have it."""
    sure = points[points[:, 2] >= min_confidence]
    seen = (sure if len(sure) > 1 else points)[:, :2]
    low, high = seen.min(0), seen.max(0)
    beyond = _BEYOND * (high - low).max()
    return np.concatenate([low - beyond, high + beyond])


def iou(a: Float[np.ndarray, "A 4"], b: Float[np.ndarray, "B 4"]) -> Float[np.ndarray, "A B"]:
    """Area that two boxes share over the area that they cover."""
    shared = (np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])).clip(0).prod(-1)
    return shared / (_area(a)[:, None] + _area(b) - shared + 1e-9)


@dataclass
class _Track:
    """A person while being followed."""

    frames: list[int]
    boxes: list[np.ndarray]
    rows: list[int]

    def expected(self, frame: int) -> Float[np.ndarray, " 4"]:
        """The last box, moved on with the velocity of the last sightings."""
        back = min(_MEMORY, len(self.boxes)) - 1
        if back < 1:
            return self.boxes[-1]
        moved = _center(self.boxes[-1]) - _center(self.boxes[-1 - back])
        velocity = moved / (self.frames[-1] - self.frames[-1 - back])
        ahead = (1 - _SLOWING ** (frame - self.frames[-1])) / (1 - _SLOWING)
        return self.boxes[-1] + np.tile(velocity * ahead, 2)


def _continued(tracks: list[_Track], frame: int, found: Float[np.ndarray, "K 4"]) -> list[_Track]:
    """Gives each track the box that continues it, if there is one, and returns new tracks of the people who were not there before."""
    taken = []
    if tracks and len(found):
        cost = _cost(np.stack([track.expected(frame) for track in tracks]), found)
        for t, row in zip(*linear_sum_assignment(np.minimum(cost, _MAX_COST)), strict=True):
            if cost[t, row] < _MAX_COST:
                tracks[t].frames.append(frame)
                tracks[t].boxes.append(found[row])
                tracks[t].rows.append(int(row))
                taken.append(int(row))
    return [_Track([frame], [found[row]], [row]) for row in _newcomers(found, taken)]


def _newcomers(found: Float[np.ndarray, "K 4"], taken: list[int]) -> list[int]:
    """Rows of boxes that belong to nobody, the largest first; a second box around the same person is a detector's stutter."""
    new: list[int] = []
    for row in np.argsort(-_area(found), kind="stable").tolist():
        known = taken + new
        if row not in taken and not (len(known) and iou(found[[row]], found[known]).max() > _SAME_PERSON_IOU):
            new.append(row)
    return new


def _cost(expected: Float[np.ndarray, "A 4"], found: Float[np.ndarray, "B 4"]) -> Float[np.ndarray, "A B"]:
    """How unlikely it is that a box continues a track: missing overlap, distance in sizes of the person, change of size."""
    size_a, size_b = np.sqrt(_area(expected) + 1e-9), np.sqrt(_area(found) + 1e-9)
    apart = np.linalg.norm(_center(expected)[:, None] - _center(found), axis=-1)
    return 1 - iou(expected, found) + apart / size_a[:, None] + np.abs(np.log(size_a[:, None] / size_b))


def _prominence(person: Person, width: int) -> float:
    """Area times length; between people of equal size and length, nearness to the middle decides."""
    return float(_area(person.boxes).sum() * (1 - _CENTRAL * min(1.0, abs(2 * _aside(person, width)))))


def _aside(person: Person, width: int) -> float:
    """Mean distance to the right of the picture's middle, over its width."""
    return float(_center(person.boxes)[:, 0].mean() / width - 0.5)


def _place(person: Person, width: int) -> str:
    aside = _aside(person, width)
    return "in the middle" if abs(aside) <= _MIDDLE else f"{'left' if aside < 0 else 'right'} of the middle"


def _in_view(num: int) -> str:
    return "1 person in view" if num == 1 else f"{num} people in view"


def _read_everyone(frame: np.ndarray, blazepose: BlazePose, known: Iterable[Roi]) -> list[Reading]:
    """Landmarks of everybody, each person once."""
    people: list[Reading] = []
    for roi in known:
        _add(people, blazepose.read(frame, roi))
    for roi in blazepose.detect(frame):
        coarse = blazepose.read(frame, roi)
        if coarse is not None and not _is_there(people, coarse):
            _add(people, blazepose.read(frame, coarse.next_roi))
    return people


def _add(people: list[Reading], reading: Reading | None) -> None:
    if reading is not None and not _is_there(people, reading):
        people.append(reading)


def _is_there(people: list[Reading], reading: Reading) -> bool:
    boxes = np.array([landmark_box(person.landmarks) for person in people]).reshape(-1, 4)
    return bool((iou(boxes, landmark_box(reading.landmarks)[None]) > _SAME_PERSON_IOU).any())


def _area(boxes: Float[np.ndarray, "*b 4"]) -> Float[np.ndarray, "*b"]:
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)


def _center(boxes: Float[np.ndarray, "*b 4"]) -> Float[np.ndarray, "*b 2"]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2
