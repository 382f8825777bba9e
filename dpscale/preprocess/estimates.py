"""Keypoints and IUV of a filmed clip from whatever the settings name: a network, files that the user brings, or the fitted body."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from dpscale.config.estimators import DensePoseSurface, RtmPoseKeypoints
from dpscale.config.schema import Config
from dpscale.config.sources import Pose2simPerformer, VideoPerformer
from dpscale.data.types import InputError
from dpscale.preprocess.crop import Crop
from dpscale.preprocess.densepose_colour import read_densepose_colour
from dpscale.preprocess.densepose_files import read_iuv
from dpscale.preprocess.densepose_torchscript import DensePoseNetwork
from dpscale.preprocess.footage import Footage
from dpscale.preprocess.iuv_crop import crop_iuv
from dpscale.preprocess.openpose_json import follow_openpose
from dpscale.preprocess.people import landmark_box
from dpscale.preprocess.person import FoundPerson
from dpscale.preprocess.rtmpose import RTMPose, follow_with_rtmpose
from dpscale.preprocess.smoothing import smooth

Filmed = VideoPerformer | Pose2simPerformer


def estimators(config: Config, performer: Filmed, blazepose: str) -> str:
    """What the pose of a clip is made by, in words; `blazepose` is the name of its network."""
    own = performer if isinstance(performer, VideoPerformer) else None
    keypoints = "OpenPose" if own and own.openpose else blazepose if config.preprocess.keypoints.kind == "blazepose" else "RTMPose"
    surface = "DensePose" if (own and own.densepose) or isinstance(config.preprocess.surface, DensePoseSurface) else "body fit"
    flow = "the user's meshes" if own and own.mesh else config.preprocess.flow
    return f"{keypoints}, {surface}, flow from {flow}"


def keypoints_in_crop(config: Config, performer: Filmed, footage: Footage, person: FoundPerson, crop: Crop) -> Float[np.ndarray, "N 18 3"]:
    """OpenPose-18 in px of the crop, smoothed as set. Raises InputError where files or a network do not fit the clip."""
    settings = config.preprocess
    if isinstance(performer, VideoPerformer) and performer.openpose:
        found = follow_openpose(performer.openpose, len(person.track), person.info.width, performer.person, settings.min_detected).keypoints
    elif isinstance(settings.keypoints, RtmPoseKeypoints):
        network = RTMPose(settings.keypoints.weights, config.ray.torch_threads)
        boxes = np.stack([landmark_box(points) for points in person.track.landmarks])
        found = follow_with_rtmpose(footage.frames(settings.max_frames, fps=settings.fps), network, boxes)
    else:
        found = person.track.openpose18()
    found = found.astype(float)
    found[..., :2] = crop.points(smooth(found[..., :2], found[..., 2], person.info.fps, settings.smoothing))
    return found


@dataclass(frozen=True)
class Picture:
    """One frame in px of the crop."""

    colours: UInt8[np.ndarray, "S S 3"]
    iuv: UInt8[np.ndarray, "S S 3"] | None
    """None: the fitted body's."""


def pictures_in_crop(config: Config, performer: Filmed, footage: Footage, crop: Crop) -> Iterator[Picture]:
    """The clip's frames, and their IUV where it does not come from the fitted body. Raises InputError."""
    settings = config.preprocess
    frames = footage.frames(settings.max_frames, fps=settings.fps)
    if isinstance(performer, VideoPerformer) and performer.densepose:
        surfaces = _read_surfaces(performer.densepose, settings.max_frames)
        for frame in frames:
            iuv = next(surfaces, None)
            if iuv is None:
                raise InputError(f"{performer.densepose}: has fewer frames than {footage.path}: give DensePose of every frame")
            yield Picture(crop.apply(frame), _cropped(crop, iuv, frame, performer.densepose))
    elif isinstance(settings.surface, DensePoseSurface):
        network = DensePoseNetwork(settings.surface.weights)
        for frame in frames:
            yield Picture(crop.apply(frame), crop_iuv(crop, network(np.ascontiguousarray(frame))))
    else:
        yield from map(Picture, map(crop.apply, frames), repeat(None))


def _read_surfaces(path: Path, max_frames: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    return read_iuv(path, max_frames) if path.is_dir() or path.suffix == ".npz" else read_densepose_colour(path, max_frames)


def _cropped(crop: Crop, iuv: UInt8[np.ndarray, "h w 3"], frame: UInt8[np.ndarray, "H W 3"], path: Path) -> UInt8[np.ndarray, "S S 3"]:
    if iuv.shape != frame.shape:
        raise InputError(
            f"{path}: is {iuv.shape[1]}x{iuv.shape[0]} px, the video {frame.shape[1]}x{frame.shape[0]}: make DensePose of the full pictures"
        )
    return crop_iuv(crop, iuv)
