"""The body of a person in a video, fitted in the crop that holds the person: kept on disk for all that is drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from dpscale.body.fit import FOCAL_PRIOR, fit_body
from dpscale.body.outline import Outlines
from dpscale.config.schema import PreprocessConfig
from dpscale.data.checkpoint import write_atomically
from dpscale.data.types import BodyMotion, BodyShape
from dpscale.preprocess.crop import Crop
from dpscale.preprocess.drive import Movement
from dpscale.preprocess.person import FoundPerson
from dpscale.preprocess.silhouettes import coverages
from dpscale.preprocess.smoothing import smooth

_OUTLINE_PX = 128
"""Side of the crop's outlines for the body fit: finer ones cost more and say no more than BlazePose's 256 px around a person."""


@dataclass(frozen=True)
class FittedBody:
    """A body in px of a crop of a video."""

    movement: Movement
    crop: Crop


def num_train(num_frames: int, train_fraction: float, split: Literal["auto", "train", "test"] = "auto") -> int:
    """Leading part that trains. `auto`: the fraction, at least one frame trains and one tests; `train`: all; `test`: the reference frame."""
    if split == "auto":
        return int(np.clip(round(num_frames * train_fraction), 1, num_frames - 1))
    return num_frames if split == "train" else 1


def fit_person(person: FoundPerson, settings: PreprocessConfig) -> FittedBody:
    """The body fitted to landmarks and outlines; its girths from the frames that train."""
    info, track, crop = person.info, person.track, person.crop(settings)
    landmarks, confidence = track.landmarks.copy(), track.landmarks[..., 2]
    landmarks[..., :2] = crop.points(smooth(landmarks[..., :2], confidence, info.fps, settings.smoothing))
    world = smooth(track.world, confidence, info.fps, settings.smoothing)
    camera = crop.camera(FOCAL_PRIOR * max(info.height, info.width), (info.width / 2, info.height / 2))
    outlines = Outlines(
        coverages(track.silhouettes, crop, track.scale, _OUTLINE_PX), crop.size, num_train(len(track), settings.train_fraction)
    )  # fmt: skip
    shape, motion = fit_body(landmarks, world, *camera, settings.fit_steps, outlines=outlines)
    return FittedBody(Movement(shape, motion, info.fps), crop)


def save_body(path: Path, body: FittedBody) -> None:
    """To an .npz, atomically."""
    shape, motion, crop = body.movement.shape, body.movement.motion, body.crop
    arrays = {
        "betas": shape.betas, "log_scales": shape.log_scales, "girths": shape.girths, "rotations": motion.rotations, "root": motion.root,
        "camera": np.array([motion.focal_px, *motion.center_px]), "fps": np.array(body.movement.fps),
        "crop": np.array([crop.left, crop.top, crop.side, crop.size]),
    }  # fmt: skip
    write_atomically(path, lambda target: np.savez(target, **arrays))


def load_body_of(path: Path) -> FittedBody:
    """What `save_body` wrote, to the bit."""
    with np.load(path) as a:
        focal, *center = map(float, a["camera"])
        motion = BodyMotion(a["rotations"], a["root"], focal, (center[0], center[1]))
        shape = BodyShape(a["betas"], a["log_scales"], a["girths"])
        return FittedBody(Movement(shape, motion, float(a["fps"])), Crop(*map(int, a["crop"])))
