"""One clip's steps as plain functions: find the person and fit the body; cut frames and draw the pose, some frames at a time; encode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from itertools import islice
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from dpscale.body.parametric import load_body
from dpscale.config.schema import Config
from dpscale.config.sources import MotionDrive, Performer, Pose2simPerformer, RenderedPerformer, VideoDrive, VideoPerformer
from dpscale.data.layout import RunLayout
from dpscale.data.shards import ShardReader
from dpscale.data.types import BodyMotion, Clip, InputError, Pose
from dpscale.preprocess.blazepose import BlazePose
from dpscale.preprocess.decode import read_frames
from dpscale.preprocess.drive import Movement, drive_by_movement, drive_by_recording
from dpscale.preprocess.estimates import Picture, estimators, keypoints_in_crop, pictures_in_crop
from dpscale.preprocess.fitted import fit_person, load_body_of, num_train, save_body
from dpscale.preprocess.iuv_flow import ClipFlow, clip_flow
from dpscale.preprocess.keys import body_key, max_frames_of, track_key
from dpscale.preprocess.mesh_arrays import check_matches_video, read_mesh_arrays
from dpscale.preprocess.mesh_arrays_flow import mesh_clip_flow, overlap_with_person
from dpscale.preprocess.person import find_driver, find_person, load_person, save_person
from dpscale.preprocess.silhouettes import coverages
from dpscale.preprocess.sources import clothed_surface, footage_of, rendered_source
from dpscale.preprocess.surface import pose_of_body

if TYPE_CHECKING:
    from dpscale.diffusion.encoders import Encoders

T = TypeVar("T")

_CHUNK_BYTES, _BYTES_PER_PX, _MOST_FRAMES = 2**24, 12, 64
"""Of the frames that are worked on together: picture, IUV, flow and masks take about 12 bytes a pixel."""


@dataclass(frozen=True)
class Tools:
    """What all clips of one process share; networks are loaded when the first clip needs them."""

    config: Config
    layout: RunLayout

    @cached_property
    def blazepose(self) -> BlazePose:
        return BlazePose(self.config.ray.torch_threads)

    @cached_property
    def encoders(self) -> Encoders:
        from dpscale.diffusion.encoders import load_encoders  # slow to import, and actors that only look for people need it not

        encoders = load_encoders(self.config.diffusion)
        if self.config.preprocess.encode_gpus > 0:
            for module in (encoders.autoencoder, encoders.image_encoder):
                module.to("cuda")
        return encoders


@dataclass(frozen=True)
class Chunk:
    """Consecutive frames of a clip."""

    start: int
    """Number of the first frame."""
    num_frames: int
    """Of the whole clip."""
    clip: Clip
    """These frames alone; latents are still missing."""


# ------------------------------------------------------------------------- find the person, fit the body


def prepare_person(tools: Tools, source: Performer | VideoDrive, digest: str) -> str:
    """Leaves the fitted body of a filmed performer or driver, or the footage and truth of a rendered one, in the run folder.

    Returns what the user should know about the choice of the person, mostly nothing. Raises InputError."""
    if isinstance(source, RenderedPerformer):
        rendered_source(source, tools.config, tools.layout)
        return ""
    body = tools.layout.step("body", body_key(tools.config, source, digest))
    track = tools.layout.step("track", track_key(tools.config, source, digest))
    if not track.exists():
        number = None if isinstance(source, Pose2simPerformer) else source.person
        max_frames = max_frames_of(tools.config, source)
        find = find_driver if isinstance(source, VideoDrive) else find_person
        save_person(track, find(footage_of(source), max_frames, number, tools.config.preprocess, tools.blazepose))
    person = load_person(track)
    notes = [person.note]
    if isinstance(source, VideoPerformer) and source.mesh:
        meshes, info = read_mesh_arrays(source.mesh), person.info
        check_matches_video(meshes, source.path, len(person.track), info.height, info.width, tools.config.preprocess.max_frames)
        notes.append(meshes.note)
    if not body.exists():
        save_body(body, fit_person(person, tools.config.preprocess))
    return "; ".join(note for note in notes if note)


# ------------------------------------------------------------------------------ cut frames, draw the pose


def main_chunks(tools: Tools, performer: Performer, digest: str, provenance: dict[str, str]) -> Iterator[Chunk]:
    """Clip `main` of a performer, after `prepare_person`. Raises InputError."""
    if isinstance(performer, RenderedPerformer):
        yield from _rendered_chunks(tools, performer, provenance | {"pose": "exact truth of the renderer"} | _versions())
    else:
        made_by = estimators(tools.config, performer, tools.blazepose.name)
        yield from _filmed_chunks(tools, performer, digest, provenance | {"pose": made_by} | _versions())


def driving_chunks(tools: Tools, performer: Performer, drive: MotionDrive | VideoDrive, digest: str, provenance: dict[str, str]) -> Iterator[Chunk]:
    """Clip `<drive>` of a performer: the drive's movement on the performer's own body. Clip `main` must be there, and the driver's body."""
    body, main, size = load_body(), ShardReader(tools.layout.shard(performer.name, "main")), tools.config.preprocess.size
    reference = Movement(main.shape, main.motion, main.fps)
    if isinstance(drive, MotionDrive):
        fps = drive.fps or main.fps
        motion = drive_by_recording(body, reference, drive.motion, drive.num_frames, fps, size)
    else:
        driver = load_body_of(tools.layout.step("body", body_key(tools.config, drive, digest))).movement
        fps, motion = driver.fps, drive_by_movement(body, reference, driver, size)
    provenance = provenance | {"pose": f"{drive.kind} on the performer's body"} | _versions()
    surface, num_frames = clothed_surface(performer), len(motion.root)
    for start in range(0, num_frames, _chunk_frames(size)):
        pose = _drawn(Movement(reference.shape, motion, fps), start, size, None, surface).at(slice(0, _chunk_frames(size)))
        yield Chunk(start, num_frames, Clip(performer.name, drive.name, fps, num_frames, pose, provenance=provenance))


def _filmed_chunks(tools: Tools, performer: VideoPerformer | Pose2simPerformer, digest: str, provenance: dict[str, str]) -> Iterator[Chunk]:
    config, settings, footage = tools.config, tools.config.preprocess, footage_of(performer)
    person = load_person(tools.layout.step("track", track_key(config, performer, digest)))
    fitted = load_body_of(tools.layout.step("body", body_key(config, performer, digest)))
    keypoints = keypoints_in_crop(config, performer, footage, person, fitted.crop)
    num_frames, count = len(person.track), _chunk_frames(settings.size)
    train = num_train(num_frames, settings.train_fraction, performer.split if isinstance(performer, VideoPerformer) else "auto")
    pictures = pictures_in_crop(config, performer, footage, fitted.crop)
    meshes = read_mesh_arrays(performer.mesh) if isinstance(performer, VideoPerformer) and performer.mesh else None
    ahead = _taken(pictures, 1, str(footage.path))
    for start in range(0, num_frames, count):
        here = slice(start, min(start + count, num_frames))
        own = ahead + _taken(pictures, min(here.stop + 1, num_frames) - start - 1, str(footage.path))
        ahead = own[here.stop - start :]
        mask = coverages(person.track.silhouettes[here], fitted.crop, person.track.scale, settings.size)
        if meshes and start == 0:
            overlap_with_person(meshes, start, fitted.crop, mask)
        own_flow = mesh_clip_flow(meshes, start, len(own), fitted.crop, settings.size) if meshes else None
        drawn = _drawn(fitted.movement, start, settings.size, keypoints, None)
        pose = _observed(drawn, own, settings.flow, own_flow).at(slice(0, here.stop - start))
        colours = np.stack([picture.colours for picture in own[: here.stop - start]])
        clip = Clip(performer.name, "main", fitted.movement.fps, train, pose, colours, None, None, mask, provenance)
        yield Chunk(start, num_frames, clip)


def _observed(drawn: Pose, pictures: list[Picture], flow: Literal["mesh", "iuv"], own_flow: ClipFlow | None) -> Pose:
    """The drawn pose of a chunk and, where there is one, of the frame after it: with the IUV of the pictures, if they have their own, and
    with the flow of the user's meshes (`own_flow`), or from IUV if that is wanted."""
    iuv = drawn.iuv if pictures[0].iuv is None else np.stack([picture.iuv for picture in pictures])
    found = clip_flow(iuv) if flow == "iuv" else own_flow
    if found is not None:
        drawn = replace(drawn, flow=found.flow, flow_valid=found.valid)
    return replace(drawn, iuv=iuv, flow_valid=drawn.flow_valid & (iuv[..., 0] > 0))


def _rendered_chunks(tools: Tools, performer: RenderedPerformer, provenance: dict[str, str]) -> Iterator[Chunk]:
    """The picture of a rendered performer is the crop."""
    settings, source = tools.config.preprocess, rendered_source(performer, tools.config, tools.layout)
    num_frames, count = len(source.pose), _chunk_frames(settings.size)
    frames = read_frames(source.video, settings.max_frames)
    for start in range(0, num_frames, count):
        here = slice(start, min(start + count, num_frames))
        pictures = np.stack(_taken(frames, here.stop - start, str(source.video)))
        train = num_train(num_frames, settings.train_fraction)
        clip = Clip(performer.name, "main", performer.fps, train, source.pose.at(here), pictures, None, None, source.mask[here], provenance)
        yield Chunk(start, num_frames, clip)


def _taken(frames: Iterator[T], count: int, video: str) -> list[T]:
    """The next `count` frames. Raises InputError if the video has fewer."""
    taken = list(islice(frames, count))
    if len(taken) < count:
        raise InputError(f"{video}: gives fewer frames than when the person was looked for: did it change?")
    return taken


def _drawn(fitted: Movement, start: int, size: int, keypoints: np.ndarray | None, surface: np.ndarray | None) -> Pose:
    """The pose in the frames of a chunk and in the one after it, into which the flow leads."""
    motion, count = fitted.motion, _chunk_frames(size)
    more = slice(start, start + count + 1)
    some = BodyMotion(motion.rotations[more], motion.root[more], motion.focal_px, motion.center_px)
    points = None if keypoints is None else keypoints[more]
    return pose_of_body(load_body(), fitted.shape, some, size, points, surface)


def _chunk_frames(size: int) -> int:
    return int(np.clip(_CHUNK_BYTES // (_BYTES_PER_PX * size**2), 1, _MOST_FRAMES))


# -------------------------------------------------------------------------------------------- encode


def encoded(tools: Tools, chunk: Chunk) -> Clip:
    """The chunk's clip with latents and, in the first chunk, the image embedding of frame 0. A driving clip has neither."""
    if chunk.clip.frames is None:
        return chunk.clip
    from dpscale.preprocess.latents import encode_frames  # as in Tools.encoders

    embedding = tools.encoders.embed_image(chunk.clip.frames[0]) if chunk.start == 0 else None
    return replace(chunk.clip, latents=encode_frames(tools.encoders, chunk.clip.frames), image_embedding=embedding)


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("av", "numpy", "torch")}
