"""Pass one over a video: who is in it, where, in every frame. Its result is kept on disk, for it is the costliest step."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from dpscale.config.schema import PreprocessConfig
from dpscale.data.checkpoint import write_atomically
from dpscale.data.types import InputError
from dpscale.preprocess.blazepose import BlazePose, Roi
from dpscale.preprocess.crop import Crop, crop_around
from dpscale.preprocess.decode import VideoInfo
from dpscale.preprocess.densepose_colour import is_densepose_colour
from dpscale.preprocess.footage import Footage
from dpscale.preprocess.keypoints import PersonTrack, track_person
from dpscale.preprocess.lifting import lifted
from dpscale.preprocess.people import blazepose_people, choose_person, track_people
from dpscale.preprocess.silhouettes import Silhouette
from dpscale.preprocess.skeleton_drawing import is_skeleton_drawing, read_skeletons

_SEARCH_PX = 1280
"""Longer side of the picture in which the person is looked for: enough for BlazePose's 256 px around a person."""


_PROBED = 8
"""Frames in which a drawing is recognised."""


@dataclass(frozen=True)
class FoundPerson:
    """One person in all frames of a video."""

    info: VideoInfo
    track: PersonTrack
    note: str
    """What the user should know about the choice; empty where there was none."""

    def crop(self, settings: PreprocessConfig) -> Crop:
        """The square that holds the person in all frames."""
        return crop_around(self.track.extent(), self.info.height, self.info.width, settings.crop_margin, settings.size)


def find_person(footage: Footage, max_frames: int, person: int | None, settings: PreprocessConfig, blazepose: BlazePose) -> FoundPerson:
    """Looks who is there, chooses (`person`, from 1, by prominence; none: the most prominent) and follows the chosen one.

    One frame at a time is in memory. Raises InputError."""
    info = footage.probe(settings.fps)
    shrink = min(1.0, _SEARCH_PX / max(info.height, info.width))
    seen = blazepose_people(footage.frames(max_frames, _SEARCH_PX, settings.fps), blazepose, settings.look_every)
    everyone = track_people(seen.boxes, seen.width)
    choice = choose_person(str(footage.path), everyone, person) if everyone.everyone else None
    boxes = choice.person.in_all_frames(len(seen.boxes)) if choice and len(everyone.everyone) > 1 else None
    frames = footage.frames(max_frames, _SEARCH_PX, settings.fps)
    track = track_person(str(footage.path), frames, blazepose, settings.min_detected, 1 / shrink, boxes)
    return FoundPerson(info, track, (choice.note if choice else None) or "")


def find_driver(footage: Footage, max_frames: int, person: int | None, settings: PreprocessConfig, blazepose: BlazePose) -> FoundPerson:
    """As `find_person`; of a skeleton drawing, the person that it was drawn from. Raises InputError, also for a DensePose part map."""
    first = np.stack(list(islice(footage.frames(_PROBED), _PROBED)))
    if is_densepose_colour(first):
        raise InputError(
            f"{footage.path}: is a DensePose part map: it tells no depth and no size of the limbs; give the video it was made from, or a "
            "skeleton drawing of it"
        )
    if not is_skeleton_drawing(first):
        return find_person(footage, max_frames, person, settings, blazepose)
    keypoints = read_skeletons(str(footage.path), footage.frames(max_frames, fps=settings.fps), settings.min_detected)
    return FoundPerson(footage.probe(settings.fps), lifted(str(footage.path), keypoints), "a skeleton drawing: depth is guessed from the pose alone")


def save_person(path: Path, person: FoundPerson) -> None:
    """To an .npz, atomically."""
    info, track = person.info, person.track
    seen = [one for one in track.silhouettes if one is not None]
    arrays = {
        "info": np.array([info.height, info.width, info.fps]), "note": np.array(person.note), "changes": np.array(info.changes, dtype=np.str_),
        "landmarks": track.landmarks, "world": track.world, "found": track.found, "scale": np.array(track.scale),
        "has_silhouette": np.array([one is not None for one in track.silhouettes]),
        "rois": np.array([[one.roi.x, one.roi.y, one.roi.side, one.roi.angle] for one in seen]).reshape(-1, 4),
        "lengths": np.array([len(one.packed) for one in seen], np.int64), "packed": np.frombuffer(b"".join(one.packed for one in seen), np.uint8),
    }  # fmt: skip
    write_atomically(path, lambda target: np.savez(target, **arrays))


def load_person(path: Path) -> FoundPerson:
    """What `save_person` wrote, to the bit."""
    with np.load(path) as a:
        ends = np.cumsum(a["lengths"])
        packed = a["packed"].tobytes()
        seen = iter([Silhouette(Roi(*map(float, roi)), packed[end - n : end]) for roi, end, n in zip(a["rois"], ends, a["lengths"], strict=True)])
        silhouettes = tuple(next(seen) if has else None for has in a["has_silhouette"])
        height, width, fps = a["info"]
        info = VideoInfo(int(height), int(width), float(fps), tuple(map(str, a["changes"])))
        return FoundPerson(info, PersonTrack(a["landmarks"], a["world"], a["found"], silhouettes, float(a["scale"])), str(a["note"]))
