"""Who performs, and what they are to do: the footage and recordings of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dpscale.config.joint import Interval
from dpscale.config.section import Name, Section, Seed


class QueuedPerformer(Section):
    """Who asks for a performer, and how soon. Changes no result."""

    name: Name
    tenant: Name = Field(default="default", description="On whose behalf; finetune.max_per_tenant bounds how many of one tenant train at once.")
    priority: int = Field(default=0, ge=-1000, le=1000, description="Higher trains first.")


class VideoPerformer(QueuedPerformer):
    """A performer given as a video file of one person."""

    kind: Literal["video"] = "video"
    path: Path = Field(description="Video file that PyAV can decode, or a folder of numbered pictures.")
    start_s: float = Field(default=0.0, ge=0, description="Where the clip begins in the video.")
    end_s: float | None = Field(default=None, gt=0, description="Where it ends; none: with the video.")
    split: Literal["auto", "train", "test"] = Field(
        default="auto", description="auto: preprocess.train_fraction trains; train: all frames train; test: only the reference frame does."
    )
    person: int | None = Field(default=None, ge=1, description="Which of several people, by prominence; none: the most prominent.")
    openpose: Path | None = Field(default=None, description="Folder of OpenPose's JSON files for this clip, instead of preprocess.keypoints.")
    densepose: Path | None = Field(
        default=None, description="DensePose of this clip (PNG folder, .npz or part-colour video), instead of preprocess.surface."
    )
    mesh: Path | None = Field(
        default=None, description="Vertex arrays of this clip (.npz, docs/mesh_arrays.md): human flow from them instead of the fitted body's."
    )

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> VideoPerformer:
        if self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError(f"performer {self.name!r}: end_s = {self.end_s:g} must be after start_s = {self.start_s:g}")
        return self


class RenderedPerformer(QueuedPerformer):
    """A rendered performer with exact truth; body, clothes, light and background follow from the seed."""

    kind: Literal["rendered"] = "rendered"
    performer_seed: Seed = Field(description="Seeds of 1,000,000 and above are kept out of base training.")
    motion: str = Field(default="dance_a", pattern=r"^[a-z0-9_]+$", description="Recording of pybullet_data: humanoid3d_<motion>.txt.")
    num_frames: int = Field(default=100, ge=2, le=100_000)
    fps: float = Field(default=30.0, gt=0, le=240)


class Pose2simPerformer(QueuedPerformer):
    """The balancing man of pose2sim's single-person demo (BSD-3-Clause), read from the installed package."""

    kind: Literal["pose2sim"] = "pose2sim"
    camera: Literal["cam01", "cam02", "cam03", "cam04"] = Field(default="cam02", description="cam02 sees him from the front.")


Performer = Annotated[VideoPerformer | RenderedPerformer | Pose2simPerformer, Field(discriminator="kind")]


class SelfDrive(Section):
    """Drive with the held-out part of the performer's own video: the truth is known."""

    kind: Literal["self"] = "self"
    name: Name = "self"


class VideoDrive(Section):
    """Drive with the movement of the person in another video."""

    kind: Literal["video"] = "video"
    name: Name
    path: Path = Field(description="Video file of a person, or folder of numbered pictures.")
    person: int | None = Field(default=None, ge=1, description="Which of several people, by prominence; none: the most prominent.")
    max_frames: int = Field(default=300, ge=2, le=100_000)


class MotionDrive(Section):
    """Drive the performer's own fitted body, in its own camera, with recorded motion capture."""

    kind: Literal["motion"] = "motion"
    name: Name
    motion: str = Field(default="dance_b", pattern=r"^[a-z0-9_]+$", description="Recording of pybullet_data: humanoid3d_<motion>.txt.")
    num_frames: int = Field(default=60, ge=2, le=100_000)
    fps: float | None = Field(default=None, gt=0, le=240, description="Frame rate of the video to make; none: the performer's own.")


Drive = Annotated[SelfDrive | VideoDrive | MotionDrive, Field(discriminator="kind")]


class VideoConfig(Section):
    """One video to make: a performer doing a drive's movement."""

    performer: Name
    drive: Name = "self"
    refresh_interval: Interval | None = Field(default=None, description="Field steps between this video's refreshes; none: joint.refresh_interval.")
