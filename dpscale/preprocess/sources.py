"""Where the footage of a performer or a drive is: a user's file, an installed package, or rendered here."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float, UInt8

from dpscale.body.rendered import person, render_performer
from dpscale.config.schema import Config
from dpscale.config.sources import Performer, Pose2simPerformer, RenderedPerformer, VideoDrive, VideoPerformer
from dpscale.data.checkpoint import write_atomically
from dpscale.data.layout import RunLayout
from dpscale.data.types import BodyMotion, BodyShape, InputError, Pose
from dpscale.preprocess.footage import Footage

_CRF = 16
"""Constant quality of rendered footage in H.264: nearly invisible loss, as good phone footage has."""


@dataclass(frozen=True)
class Rendered:
    """A rendered performer's footage and its exact truth."""

    video: Path
    pose: Pose
    mask: UInt8[np.ndarray, "N H W"]


def footage_of(source: Performer | VideoDrive) -> Footage:
    """The footage of a performer or drive that is not rendered. Raises InputError with the remedy."""
    if isinstance(source, VideoPerformer):
        return Footage(source.path, source.start_s, source.end_s)
    if isinstance(source, VideoDrive):
        return Footage(source.path)
    if isinstance(source, Pose2simPerformer):
        return Footage(_pose2sim_video(source.camera))
    raise InputError(f"performer {source.name!r} is rendered: it has no video file of its own")


def source_digest(source: Performer | VideoDrive, config: Config) -> str:
    """Content hash of the footage; of what decides every pixel, for rendered footage. Raises InputError."""
    if isinstance(source, RenderedPerformer):
        return hashlib.sha256(_recipe(source, config).encode()).hexdigest()
    return footage_of(source).digest()


def rendered_source(performer: RenderedPerformer, config: Config, layout: RunLayout) -> Rendered:
    """Renders the performer, or finds it rendered by an earlier run with the same settings."""
    video, truth, recipe = layout.source_video(performer.name), layout.truth(performer.name), _recipe(performer, config)
    if not (video.exists() and truth.exists() and _recipe_of(truth) == recipe):
        num_frames, size = _num_frames(performer, config), config.preprocess.size
        clip = render_performer(performer.performer_seed, performer.motion, num_frames, performer.fps, size, config.synth.supersampling)
        write_atomically(video, lambda path: write_h264(path, clip.frames, performer.fps))
        write_atomically(truth, lambda path: np.savez_compressed(path, recipe=np.array(recipe), mask=clip.mask, **_pose_arrays(clip.pose)))
    return Rendered(video, *_read_truth(truth))


def clothed_surface(performer: Performer) -> Float[np.ndarray, "V 3"] | None:
    """Rest surface of a rendered performer with its clothes; None where only the bare fitted body is known."""
    return person(performer.performer_seed).dressed.vertices if isinstance(performer, RenderedPerformer) else None


def write_h264(path: Path, frames: UInt8[np.ndarray, "N H W 3"], fps: float) -> None:
    """Encodes frames of even size. One thread: the bytes do not depend on the machine's number of cores.

    Of pictures of 32 px libx264 reads memory that nobody wrote, and clips that have more frames than it looks ahead differ from run to
    run; of 64 px and more none did."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.options = {"crf": str(_CRF), "preset": "medium"}
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))


def _pose2sim_video(camera: str) -> Path:
    spec = importlib.util.find_spec("Pose2Sim")
    if spec is None or spec.origin is None:
        raise InputError("kind pose2sim needs the package pose2sim: run `make setup`, or `pip install --no-deps -r requirements-data.txt`")
    path = Path(spec.origin).parent / "Demo_SinglePerson" / "videos" / f"{camera}.mp4"
    if not path.is_file():
        raise InputError(f"{path}: not in the installed pose2sim: reinstall with `pip install --no-deps --force-reinstall -r requirements-data.txt`")
    return path


def _num_frames(performer: RenderedPerformer, config: Config) -> int:
    return min(performer.num_frames, config.preprocess.max_frames)


def _recipe(performer: RenderedPerformer, config: Config) -> str:
    """Everything that decides the pixels of a rendered performer."""
    parts = {"seed": performer.performer_seed, "motion": performer.motion, "num_frames": _num_frames(performer, config), "fps": performer.fps,
             "size": config.preprocess.size, "supersampling": config.synth.supersampling, "crf": _CRF, "truth": 2}  # fmt: skip
    return json.dumps(parts, sort_keys=True)


def _recipe_of(truth: Path) -> str:
    with np.load(truth) as arrays:
        return str(arrays["recipe"])


def _pose_arrays(pose: Pose) -> dict[str, np.ndarray]:
    motion, shape = pose.motion, pose.shape
    return {
        "keypoints": pose.keypoints, "iuv": pose.iuv, "flow": pose.flow.astype(np.float32), "flow_valid": pose.flow_valid, "betas": shape.betas,
        "log_scales": shape.log_scales, "rotations": motion.rotations, "root": motion.root, "focal_px": np.array(motion.focal_px),
        "center_px": np.array(motion.center_px),
    }  # fmt: skip


def _read_truth(path: Path) -> tuple[Pose, UInt8[np.ndarray, "N H W"]]:
    with np.load(path) as a:
        motion = BodyMotion(a["rotations"], a["root"], float(a["focal_px"]), (float(a["center_px"][0]), float(a["center_px"][1])))
        return Pose(a["keypoints"], a["iuv"], a["flow"], a["flow_valid"], BodyShape(a["betas"], a["log_scales"]), motion), a["mask"]
