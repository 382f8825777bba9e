"""What the joint optimisation of one video is given."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.checkpoint import marker_of
from dpscale.data.layout import RunLayout
from dpscale.data.shards import is_complete, read_clip
from dpscale.data.types import InputError, Pose
from dpscale.diffusion.reference import KnownFrames, known_frames


@dataclass(frozen=True)
class VideoTask:
    """One video to make: N frames of H x W px of a performer in the driving pose."""

    name: str
    config: Config
    pose: Pose
    """P: the driving sequence."""
    reference: UInt8[np.ndarray, "H W 3"]
    """I_ref: frame 0 of the performer's own clip."""
    image_embedding: Float[np.ndarray, " D"]
    known: KnownFrames
    """The performer's training frames, whose looks a denoiser with references is given."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """N, H, W."""
        return len(self.pose), self.reference.shape[0], self.reference.shape[1]

    @property
    def body(self) -> Bool[np.ndarray, "N H W"]:
        return self.pose.iuv[..., 0] > 0


def load_task(config: Config, layout: RunLayout, video: VideoConfig) -> VideoTask:
    """Reads what a video needs from its shards. Raises InputError where something is missing or does not fit."""
    check_inputs(config, layout, video)
    main = read_clip(layout.shard(video.performer, "main"))
    if main.frames is None or main.image_embedding is None:
        raise InputError(f"{layout.shard(video.performer, 'main')} has no frames or image embedding: preprocess the video of {video.performer!r}")
    pose = main.pose.at(slice(main.num_train, None)) if _drives_itself(config, video) else read_clip(layout.shard(video.performer, video.drive)).pose
    if pose.iuv.shape[1:3] != main.frames.shape[1:3]:
        raise InputError(
            f"drive {video.drive!r} has {pose.iuv.shape[1:3]} px, performer {video.performer!r} {main.frames.shape[1:3]}: preprocess both at one size"
        )
    return VideoTask(layout.video_name(video), config, pose, main.frames[0], main.image_embedding, known_frames(main))


def check_inputs(config: Config, layout: RunLayout, video: VideoConfig) -> None:
    """Raises InputError that names the stage to run where an earlier stage's result is missing."""
    for shard in _shards(config, layout, video):
        if not is_complete(shard):
            raise InputError(f"{shard} is not there or unfinished: preprocess performer {video.performer!r} first")
    if marker_of(layout.finetune(video.performer)) is None:
        raise InputError(f"{layout.finetune(video.performer)} is not there or unfinished: finetune performer {video.performer!r} first")


def fingerprint(config: Config, layout: RunLayout, video: VideoConfig) -> str:
    """Hash of everything that decides the frames of a video. Work done under another fingerprint is never reused."""
    decides = {
        "video": layout.video_name(video),
        "seed": config.run.seed,
        "torch_threads": config.ray.torch_threads,
        "devices": [config.scheduler.field_gpus > 0, config.scheduler.refresh_gpus > 0],
        "field": config.field.model_dump(mode="json"),
        "joint": config.joint.decisive(),
        "diffusion": config.diffusion.model_dump(mode="json"),
        "shards": [marker_of(shard) for shard in _shards(config, layout, video)],
        "finetune": marker_of(layout.finetune(video.performer)),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _drives_itself(config: Config, video: VideoConfig) -> bool:
    return any(drive.name == video.drive and drive.kind == "self" for drive in config.drives)


def _shards(config: Config, layout: RunLayout, video: VideoConfig) -> list:
    clips = ["main"] if _drives_itself(config, video) else ["main", video.drive]
    return [layout.shard(video.performer, clip) for clip in clips]
