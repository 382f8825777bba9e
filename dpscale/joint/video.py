"""What the joint optimisation of one video is given."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.checkpoint import marker_of
from dpscale.data.layout import RunLayout
from dpscale.data.shards import ShardReader, is_complete
from dpscale.data.types import InputError, Pose
from dpscale.diffusion.reference import KnownFrames
from dpscale.field.loss import HumanFlow
from dpscale.joint.inputs import decode_inputs, mapped_human_flow, mapped_known, mapped_pose


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
    inputs: Path | None = None
    """Folder of the files from which its arrays are mapped; None: they are in memory."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """N, H, W."""
        return len(self.pose), self.reference.shape[0], self.reference.shape[1]

    def human_flow(self) -> HumanFlow:
        """Where the human flow is known, for the field's loss."""
        if self.inputs is not None:
            return mapped_human_flow(self.inputs)
        flow, valid, body = (torch.from_numpy(np.ascontiguousarray(a)) for a in (self.pose.flow, self.pose.flow_valid, self.pose.iuv[..., 0] > 0))
        return HumanFlow.of(flow.float(), valid, body, self.config.joint.background_flow)


@dataclass(frozen=True)
class Driving:
    """Where a video's driving pose lies."""

    shard: ShardReader
    frames: Int[np.ndarray, " N"]
    """Of the performer's own clip those that did not train, of another all."""

    @classmethod
    def of(cls, config: Config, layout: RunLayout, video: VideoConfig) -> Driving:
        """Raises ShardError where it is missing or unfinished."""
        shard = ShardReader(driving_shard(config, layout, video))
        return cls(shard, np.arange(shard.num_train if _drives_itself(config, video) else 0, len(shard)))


def load_task(config: Config, layout: RunLayout, video: VideoConfig) -> VideoTask:
    """What a video needs from its shards, decoded to its folder and mapped. Raises InputError where something is missing or does not fit."""
    check_inputs(config, layout, video)
    config = settings_of(config, video)
    main, driving = ShardReader(layout.shard(video.performer, "main")), Driving.of(config, layout, video)
    first, drive = main.clip(np.arange(1)), driving.shard
    if first.frames is None or first.image_embedding is None:
        raise InputError(f"{layout.shard(video.performer, 'main')} has no frames or image embedding: preprocess the video of {video.performer!r}")
    size = drive.column("iuv", np.arange(1)).shape[1:3]
    if size != first.frames.shape[1:3]:
        raise InputError(f"drive {video.drive!r} has {size} px, performer {video.performer!r} {first.frames.shape[1:3]}: preprocess both at one size")
    inputs = layout.inputs(video)
    decode_inputs(inputs, inputs_key(config, layout, video), drive, driving.frames, main, first.num_train, config.joint.background_flow)
    pose, known = mapped_pose(inputs, drive), mapped_known(inputs)
    return VideoTask(layout.video_name(video), config, pose, first.frames[0], first.image_embedding, known, inputs)


def check_inputs(config: Config, layout: RunLayout, video: VideoConfig) -> None:
    """Raises InputError that names the stage to run where an earlier stage's result is missing."""
    for shard in _shards(config, layout, video):
        if not is_complete(shard):
            raise InputError(f"{shard} is not there or unfinished: preprocess performer {video.performer!r} first")
    if marker_of(layout.finetune(video.performer)) is None:
        raise InputError(f"{layout.finetune(video.performer)} is not there or unfinished: finetune performer {video.performer!r} first")


def settings_of(config: Config, video: VideoConfig) -> Config:
    """The settings under which a video is made. Raises InputError where its refresh interval is still to be predicted."""
    own = config.of_video(video)
    if own.joint.refresh_interval == "auto":
        raise InputError(
            f"{RunLayout.video_name(video)}: joint.refresh_interval = 'auto' is predicted by `dpscale optimize` and `dpscale personalize`; "
            "elsewhere give it a number"
        )
    return own


def fingerprint(config: Config, layout: RunLayout, video: VideoConfig) -> str:
    """Hash of everything that decides the frames of a video. Work done under another fingerprint is never reused."""
    decides = {
        "video": layout.video_name(video),
        "seed": config.run.seed,
        "torch_threads": config.ray.torch_threads,
        "devices": [config.scheduler.field_gpus > 0, config.scheduler.refresh_gpus > 0],
        "field": config.field.model_dump(mode="json"),
        "joint": settings_of(config, video).joint.decisive(),
        "diffusion": config.diffusion.model_dump(mode="json"),
        "shards": [marker_of(shard) for shard in _shards(config, layout, video)],
        "finetune": marker_of(layout.finetune(video.performer)),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def driving_shard(config: Config, layout: RunLayout, video: VideoConfig) -> Path:
    """Folder of the shard that holds the driving pose."""
    return layout.shard(video.performer, "main" if _drives_itself(config, video) else video.drive)


def inputs_key(config: Config, layout: RunLayout, video: VideoConfig) -> str:
    """Hash of what the decoded arrays follow from: fewer settings than decide the frames."""
    decides = {"shards": [marker_of(shard) for shard in _shards(config, layout, video)], "background_flow": config.joint.background_flow}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _drives_itself(config: Config, video: VideoConfig) -> bool:
    return any(drive.name == video.drive and drive.kind == "self" for drive in config.drives)


def _shards(config: Config, layout: RunLayout, video: VideoConfig) -> list:
    clips = ["main"] if _drives_itself(config, video) else ["main", video.drive]
    return [layout.shard(video.performer, clip) for clip in clips]
