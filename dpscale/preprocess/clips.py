"""From a performer or a drive to a whole Clip: the stage's steps in their order, for one clip in one process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from dpscale.body.fit import FOCAL_PRIOR, fit_body
from dpscale.body.outline import Outlines
from dpscale.body.parametric import load_body
from dpscale.config.schema import Config, Drive, MotionDrive, Performer, RenderedPerformer, VideoDrive
from dpscale.data.checkpoint import write_atomically
from dpscale.data.layout import RunLayout
from dpscale.data.shards import read_clip, write_clip
from dpscale.data.types import BodyMotion, BodyShape, Clip, Pose
from dpscale.diffusion.weights import PoseVideoModel, load_model
from dpscale.preprocess.blazepose import BlazePose
from dpscale.preprocess.crop import Crop, crop_around
from dpscale.preprocess.decode import VideoInfo, probe, read_frames
from dpscale.preprocess.drive import Movement, drive_by_movement, drive_by_recording
from dpscale.preprocess.keypoints import PersonTrack, track_person
from dpscale.preprocess.latents import encode_frames
from dpscale.preprocess.silhouettes import coverages
from dpscale.preprocess.sources import clothed_surface, rendered_source, video_file
from dpscale.preprocess.surface import pose_of_body

_SEARCH_PX = 1280
"""Longer side of the picture in which the person is looked for: enough for BlazePose's 256 px around a person."""
_OUTLINE_PX = 128
"""Side of the crop's outlines for the body fit: finer ones cost more and say no more than BlazePose's 256 px around a person."""


@dataclass(frozen=True)
class Tools:
    """What all clips of one process share; networks are loaded when the first clip needs them."""

    config: Config
    layout: RunLayout

    @cached_property
    def blazepose(self) -> BlazePose:
        return BlazePose(self.config.ray.torch_threads)

    @cached_property
    def model(self) -> PoseVideoModel:
        return load_model(self.config.diffusion)


@dataclass(frozen=True)
class FoundPerson:
    """Pass one over a video: where the person is."""

    info: VideoInfo
    track: PersonTrack
    crop: Crop


def write_main(tools: Tools, performer: Performer, provenance: dict[str, str]) -> None:
    """Clip `main` of a performer, written to its shard. Raises InputError."""
    torch.set_num_threads(tools.config.ray.torch_threads)
    if isinstance(performer, RenderedPerformer):
        found, made_by = _rendered(tools, performer), "exact truth of the renderer"
    else:
        found, made_by = _filmed(tools, performer), f"{tools.blazepose.name}, body fit"
    clip = Clip(
        performer.name, "main", found.fps, _num_train(len(found.frames), tools.config), found.pose, found.frames,
        encode_frames(tools.model, found.frames), tools.model.embed_image(found.frames[0]), found.mask,
        provenance | {"pose": made_by} | _versions(),
    )  # fmt: skip
    write_clip(tools.layout.shard(performer.name, "main"), clip)


def write_movement(tools: Tools, drive: VideoDrive, path: Path, key: str) -> None:
    """The movement of the person in a driving video, fitted once for all performers, to `path` (.npz). Raises InputError."""
    torch.set_num_threads(tools.config.ray.torch_threads)
    person = find_person(tools, drive.path, drive.max_frames)
    shape, motion = _fit(person, tools.config, len(person.track))
    numbers = {"focal_px": motion.focal_px, "center_px": motion.center_px, "fps": person.info.fps, "key": key}
    arrays = {"log_scales": shape.log_scales, "betas": shape.betas, "girths": shape.girths, "rotations": motion.rotations, "root": motion.root}
    arrays |= {name: np.array(value) for name, value in numbers.items()}
    write_atomically(path, lambda target: np.savez_compressed(target, **arrays))


def write_driving(tools: Tools, performer: Performer, drive: Drive, movement: Path, provenance: dict[str, str]) -> None:
    """Clip `<drive>` of a performer: the drive's movement on the performer's own body. Clip `main` and `movement` must be there."""
    body, main, size = load_body(), read_clip(tools.layout.shard(performer.name, "main")), tools.config.preprocess.size
    reference = Movement(main.pose.shape, main.pose.motion, main.fps)
    if isinstance(drive, MotionDrive):
        fps = drive.fps or main.fps
        motion = drive_by_recording(body, reference, drive.motion, drive.num_frames, fps, size)
    else:
        driver = read_movement(movement)
        fps, motion = driver.fps, drive_by_movement(body, reference, driver, size)
    pose = pose_of_body(body, reference.shape, motion, size, surface=clothed_surface(performer))
    provenance = provenance | {"pose": f"{drive.kind} on the performer's body"} | _versions()
    write_clip(tools.layout.shard(performer.name, drive.name), Clip(performer.name, drive.name, fps, len(pose), pose, provenance=provenance))


def find_person(tools: Tools, video: Path, max_frames: int) -> FoundPerson:
    """Follows the person nearest the camera through the video, and the square that holds that person in all frames."""
    settings = tools.config.preprocess
    info = probe(video, settings.fps)
    shrink = min(1.0, _SEARCH_PX / max(info.height, info.width))
    track = track_person(str(video), read_frames(video, max_frames, _SEARCH_PX, settings.fps), tools.blazepose, settings.min_detected, 1 / shrink)
    return FoundPerson(info, track, crop_around(track.extent(), info.height, info.width, settings.crop_margin, settings.size))


def read_movement(path: Path) -> Movement:
    with np.load(path) as a:
        motion = BodyMotion(a["rotations"], a["root"], float(a["focal_px"]), (float(a["center_px"][0]), float(a["center_px"][1])))
        return Movement(BodyShape(a["betas"], a["log_scales"], a["girths"]), motion, float(a["fps"]))


def movement_key(path: Path) -> str | None:
    """The key with which a driving movement was fitted; None if it is not there."""
    if not path.exists():
        return None
    with np.load(path) as arrays:
        return str(arrays["key"])


@dataclass(frozen=True)
class _Found:
    """What a performer's video gives before any encoder."""

    fps: float
    frames: UInt8[np.ndarray, "N H W 3"]
    pose: Pose
    mask: UInt8[np.ndarray, "N H W"]


def _filmed(tools: Tools, performer: Performer) -> _Found:
    """Cropped frames and estimated pose of a filmed performer."""
    settings, video = tools.config.preprocess, video_file(performer)
    person = find_person(tools, video, settings.max_frames)
    frames = np.empty((len(person.track), settings.size, settings.size, 3), np.uint8)
    for n, frame in enumerate(read_frames(video, settings.max_frames, fps=settings.fps)):
        frames[n] = person.crop.apply(frame)
    shape, motion = _fit(person, tools.config, _num_train(len(frames), tools.config))
    keypoints = person.track.openpose18()
    keypoints[..., :2] = person.crop.points(keypoints[..., :2])
    pose = pose_of_body(load_body(), shape, motion, settings.size, keypoints)
    return _Found(person.info.fps, frames, pose, coverages(person.track.silhouettes, person.crop, person.track.scale, settings.size))


def _rendered(tools: Tools, performer: RenderedPerformer) -> _Found:
    """Decoded frames and exact pose of a rendered performer, whose picture is the crop."""
    source = rendered_source(performer, tools.config, tools.layout)
    frames = np.stack(list(read_frames(source.video, tools.config.preprocess.max_frames)))
    return _Found(performer.fps, frames, source.pose, source.mask)


def _fit(person: FoundPerson, config: Config, num_train: int) -> tuple[BodyShape, BodyMotion]:
    """The body in px of the crop, fitted to landmarks and outlines; its girths from the first `num_train` frames."""
    height, width, crop, track = person.info.height, person.info.width, person.crop, person.track
    landmarks = track.landmarks.copy()
    landmarks[..., :2] = crop.points(landmarks[..., :2])
    camera = crop.camera(FOCAL_PRIOR * max(height, width), (width / 2, height / 2))
    outlines = Outlines(coverages(track.silhouettes, crop, track.scale, _OUTLINE_PX), crop.size, num_train)
    return fit_body(landmarks, track.world, *camera, config.preprocess.fit_steps, outlines=outlines)


def _num_train(num_frames: int, config: Config) -> int:
    """Leading part that trains; at least one frame trains and one tests."""
    return int(np.clip(round(num_frames * config.preprocess.train_fraction), 1, num_frames - 1))


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("av", "numpy", "torch")}
