"""Every setting of a run, one frozen section per stage, in pipeline order.

Defaults are the paper's (DiffPerformer, CVPR 2024) where it gives a number; a description names the
source. Small runs override them in ``jobs/configs/*.toml``. This module imports neither torch nor ray.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from dpscale.config.estimators import BlazePoseKeypoints, BodyFitSurface, Keypoints, SmoothingConfig, Surface
from dpscale.config.field import FieldConfig as FieldConfig
from dpscale.config.field import HashGridConfig as HashGridConfig
from dpscale.config.joint import JointConfig as JointConfig
from dpscale.config.joint import SchedulerConfig as SchedulerConfig
from dpscale.config.model import DiffusionConfig as DiffusionConfig
from dpscale.config.model import PartsConfig as PartsConfig
from dpscale.config.search import AshaStopping as AshaStopping
from dpscale.config.search import ObjectiveConfig as ObjectiveConfig
from dpscale.config.search import PopulationStopping as PopulationStopping
from dpscale.config.search import SearchConfig as SearchConfig
from dpscale.config.section import RunName, Section, Seed
from dpscale.config.sources import (
    Drive,
    Performer,
    SelfDrive,
    VideoConfig,
    VideoPerformer,
)
from dpscale.config.submit import SubmitConfig as SubmitConfig

# --------------------------------------------------------------------------------------- the run


class RunConfig(Section):
    name: RunName = Field(default="run", description="Names the run folder and the MLflow parent run: letters, digits, '.', '-' and '_'.")
    root: Path = Field(default=Path("runs"), description="Folder that holds run folders and mlflow.db.")
    seed: Seed = Field(default=0, description="Every random number of the run derives from it.")


class RayConfig(Section):
    address: str | None = Field(default=None, description="Address of a Ray cluster; none: RAY_ADDRESS, without which a local Ray starts.")
    grow_wait_s: float | None = Field(
        default=None,
        gt=0,
        le=86_400,
        description="Most seconds that a stage waits for a cluster with an autoscaler to have room for its actors; none: it stays as it is.",
    )
    num_cpus: int | None = Field(default=None, ge=1, description="Logical CPUs of a local Ray; none: one more than the cores, at least 4.")
    object_store_gib: float = Field(default=0.5, gt=0.08, le=1024, description="Object store of a local Ray, in GiB.")
    torch_threads: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Torch threads of every worker. Fixed, because sums depend on it: results repeat to the bit only for equal values.",
    )
    dashboard: bool = Field(default=False, description="Start Ray's dashboard (on loopback).")
    submit: SubmitConfig = SubmitConfig()


# ------------------------------------------------------------------------------------------ stages


class SynthConfig(Section):
    num_performers: int = Field(default=8, ge=1, le=1_000_000)
    first_seed: Seed = Field(default=0, description="Performer i has seed first_seed + i.")
    num_frames: int = Field(default=24, ge=2, le=100_000, description="Frames per performer.")
    fps: float = Field(default=15.0, gt=0, le=240)
    supersampling: int = Field(default=2, ge=1, le=4, description="Samples per pixel and axis.")


class PreprocessConfig(Section):
    size: int = Field(default=512, ge=32, le=2048, multiple_of=8, description="Height and width of the square crop in px (paper: 512).")
    max_frames: int = Field(default=1800, ge=2, le=1_000_000, description="Frames taken from a video, from its start (paper: about a minute).")
    fps: float | None = Field(default=None, gt=0, le=240, description="Frame rate to which videos are resampled; none: their own, made constant.")
    train_fraction: float = Field(default=0.8, gt=0, lt=1, description="Leading part that trains; the contiguous tail tests (S, A.1: 80/20).")
    crop_margin: float = Field(default=1.15, ge=1, le=4, description="Side of the crop over the extent of the person in all frames.")
    min_detected: float = Field(default=0.5, gt=0, le=1, description="Part of the frames in which a person must be found.")
    keypoints: Keypoints = BlazePoseKeypoints()
    surface: Surface = BodyFitSurface()
    flow: Literal["mesh", "iuv"] = Field(default="mesh", description="Human flow from the body's mesh (METHOD 5) or from equal (part, u, v).")
    smoothing: SmoothingConfig = SmoothingConfig()
    look_every: int = Field(default=5, ge=1, le=1000, description="People are looked for in each such frame, to tell several apart.")
    fit_steps: int = Field(default=300, ge=1, le=100_000, description="Optimiser steps of the body fit.")
    store: str | None = Field(
        default=None, min_length=1, description="URL of finished shards that machines and runs share (s3://, gs://, a folder); none: this run's only."
    )
    num_actors: int = Field(default=1, ge=1, le=10_000, description="Most actors at once; encoding on GPUs has its own.")
    encode_actors: int = Field(default=1, ge=1, le=10_000, description="Most actors at once that encode frames on GPUs.")
    encode_gpus: float = Field(default=0.0, ge=0, le=8, description="GPUs of each of them; 0: the other actors encode.")


class AutoencoderTrainConfig(Section):
    steps: int = Field(default=2000, ge=0, le=10_000_000, description="Decoder steps (paper: 2000).")
    lr: float = Field(default=5e-5, gt=0, le=1, description="AdamW learning rate (paper: 5e-5).")
    batch_size: int = Field(default=4, ge=1, le=4096, description="Frames per step.")


class PretrainConfig(Section):
    num_performers: int = Field(
        default=400, ge=1, le=999_999, description="Rendered performers, seeds 0 .. n-1; seeds of 1,000,000 and above are never used."
    )
    held_out_performers: int = Field(default=8, ge=1, le=10_000, description="Further seeds, measured and never trained on.")
    num_frames: int = Field(default=48, ge=8, le=10_000, description="Frames per performer.")
    fps: float = Field(default=15.0, gt=0, le=240, description="Frame rate of the rendered clips.")
    decoder_steps: int = Field(default=4000, ge=0, le=10_000_000)
    decoder_lr: float = Field(default=1e-3, gt=0, le=1)
    image_steps: int = Field(default=12_000, ge=0, le=10_000_000, description="Steps on single frames of many performers.")
    video_steps: int = Field(default=4_000, ge=0, le=10_000_000, description="Steps on 8-frame clips, after the image steps.")
    batch_frames: int = Field(default=8, ge=1, le=4096, description="Frames per step.")
    lr: float = Field(default=3e-4, gt=0, le=1)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    checkpoint_every_s: float = Field(default=120.0, gt=0)


class FinetuneConfig(Section):
    trainable: Literal["temporal", "all"] = Field(
        default="temporal", description="temporal: temporal layers, pose encoder, widened inputs (paper); all: the whole denoiser."
    )
    lora_rank: int | None = Field(
        default=None, ge=1, le=1024, description="Rank of LoRA adapters that train instead of the temporal layers (ours); none: these train whole."
    )
    epochs: float = Field(default=10.0, gt=0, le=100_000, description="Passes over the training frames (paper: 10); a step sees clip_frames of them.")
    max_steps: int | None = Field(default=None, ge=1, description="Cap on optimiser steps; none: epochs decide.")
    lr: float = Field(default=5e-6, gt=0, le=1, description="AdamW learning rate (paper: 5e-6).")
    lr_schedule: Literal["constant", "cosine"] = Field(
        default="constant", description="cosine: the learning rate falls to zero over the steps (ours, for short trainings); constant: paper."
    )
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="AdamW weight decay (ours: PyTorch's default).")
    clip_frames: int = Field(default=8, ge=1, le=256, description="Frames per iteration, at random (paper: 8).")
    condition_dropout: float = Field(
        default=0.1, ge=0, lt=1, description="Probability of dropping the image embedding, for classifier-free guidance."
    )
    loss: Literal["l2", "l1"] = Field(default="l2", description="Norm of Eq. 1 (paper: l2).")
    body_weight: float = Field(default=0.0, ge=0, le=100, description="Extra weight of Eq. 1 on cells that hold the body (ours; paper: 0).")
    decoder: AutoencoderTrainConfig = AutoencoderTrainConfig()
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1, description="Saves this moving average of the trained parameters over steps; none: the last values (paper)."
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="Arithmetic of a step; bf16: autocast, while weights, gradients and optimiser stay fp32 (ours)."
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Computes layers again in backward instead of keeping them: less memory, about a third more time."
    )
    offload: Literal["none", "optimizer", "parameters", "nvme"] = Field(
        default="none", description="What DeepSpeed keeps in host memory (nvme: on disk)."
    )
    nvme_path: Path | None = Field(default=None, description="Folder on a fast local disk, for offload = nvme.")
    num_workers: int = Field(default=1, ge=1, le=1024, description="Workers per performer; more than one trains in a Ray Train TorchTrainer.")
    batch_clips: int | None = Field(default=None, ge=1, le=65_536, description="Clips per step over all workers; none: one a worker (paper: 1).")
    cache_gib: float = Field(default=1.0, ge=0, le=1024, description="Host memory of a worker for frames' pose maps and references, in GiB.")
    max_concurrent: int = Field(default=1, ge=1, le=10_000, description="Performers finetuned at once.")
    max_per_tenant: int | None = Field(default=None, ge=1, le=10_000, description="Performers of one tenant finetuned at once; none: no cap.")
    checkpoint_every: int = Field(default=50, ge=1, le=1_000_000, description="Steps between checkpoints.")
    validate_every: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Denoiser steps between videos of held-out frames for the tracker; none: no videos."
    )
    max_failures: int = Field(default=1, ge=0, le=100, description="Retries of a performer that failed for a reason other than its input.")

    @model_validator(mode="after")
    def _workers_share_the_batch(self) -> FinetuneConfig:
        if self.batch_clips is not None and self.batch_clips % self.num_workers:
            raise ValueError(f"finetune.batch_clips = {self.batch_clips} must be a multiple of finetune.num_workers = {self.num_workers}")
        return self

    @property
    def clips_per_worker(self) -> int:
        """Clips whose gradients a worker adds up for one step."""
        return (self.batch_clips or self.num_workers) // self.num_workers


class EvaluateConfig(Section):
    body_dilation_px: int = Field(default=2, ge=0, le=64, description="Growth of the body mask for psnr_body, in px.")


class TrackingConfig(Section):
    kind: Literal["mlflow", "file", "none"] = "mlflow"
    uri: str | None = Field(default=None, description="MLflow tracking URI; none: SQLite at <run.root>/mlflow.db.")
    experiment: str = Field(default="dpscale", min_length=1, max_length=180)
    drain_s: float = Field(default=60.0, ge=0, le=86400, description="How long the end of a job waits for a slow server; what is left is sent later.")
    spool_gib: float = Field(default=2.0, gt=0, le=1000, description="Points are dropped while more than this waits on disk for the server.")
    system_metrics_s: float | None = Field(
        default=10.0, ge=1, le=3600, description="Seconds between measurements of each node (CPU, memory, disk, network, GPU); none: off."
    )
    models: bool = Field(default=True, description="Register each finetuned performer, with its deltas, as a model version.")


class Config(Section):
    """A whole run."""

    run: RunConfig = RunConfig()
    ray: RayConfig = RayConfig()
    performers: tuple[Performer, ...] = ()
    drives: tuple[Drive, ...] = (SelfDrive(),)
    videos: tuple[VideoConfig, ...] = Field(default=(), description="What to make; none: every performer with every drive.")
    synth: SynthConfig = SynthConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    pretrain: PretrainConfig = PretrainConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    field: FieldConfig = FieldConfig()
    joint: JointConfig = JointConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    search: SearchConfig = SearchConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _finetunes_as_it_can(self) -> Config:
        if self.finetune.lora_rank is not None and self.finetune.trainable == "all":
            raise ValueError("finetune.lora_rank adapts the temporal layers alone: leave it out, or set finetune.trainable = temporal")
        if self.finetune.offload == "nvme" and self.finetune.nvme_path is None:
            raise ValueError("finetune.offload = nvme needs finetune.nvme_path: a folder on a fast local disk")
        if self.finetune.offload != "none" and self.finetune.clips_per_worker > 1:
            # DeepSpeed 0.19.8 then adds up the gradients of the widened convolution wrongly when its reduce bucket is small.
            raise ValueError("finetune.offload takes one clip a worker: set finetune.batch_clips = finetune.num_workers, or finetune.offload = none")
        return self

    @model_validator(mode="after")
    def _a_still_background_has_no_flow(self) -> Config:
        if self.field.background.layer and self.joint.background_flow:
            raise ValueError("field.background.layer keeps the background still by itself: set joint.background_flow = false")
        return self

    @model_validator(mode="after")
    def _names_are_unique_and_known(self) -> Config:
        for key, names in (("performers", [p.name for p in self.performers]), ("drives", [d.name for d in self.drives])):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ValueError(f"{key}: the name {twice[0]!r} is used twice; give each its own")
        for performer in self.performers:
            if isinstance(performer, VideoPerformer) and performer.mesh and self.preprocess.flow == "iuv":
                raise ValueError(f"performer {performer.name!r}: mesh gives the human flow, so preprocess.flow must be 'mesh'")
        for video in self.videos:
            if video.performer not in {p.name for p in self.performers}:
                raise ValueError(f"videos: no performer is named {video.performer!r}")
            if video.drive not in {d.name for d in self.drives}:
                raise ValueError(f"videos: no drive is named {video.drive!r}")
            if video.refresh_interval is not None and video.refresh_interval <= self.joint.refresh_overlap:
                raise ValueError(
                    f"videos: refresh_interval = {video.refresh_interval} of {video.performer!r} must be above "
                    f"joint.refresh_overlap = {self.joint.refresh_overlap}"
                )
        return self

    def planned_videos(self) -> tuple[VideoConfig, ...]:
        """The videos to make: as listed, or every performer with every drive."""
        if self.videos:
            return self.videos
        return tuple(VideoConfig(performer=p.name, drive=d.name) for p in self.performers for d in self.drives)

    def of_video(self, video: VideoConfig) -> Config:
        """The settings of one video: its own refresh interval, where it has one."""
        if video.refresh_interval is None:
            return self
        return self.model_copy(update={"joint": self.joint.model_copy(update={"refresh_interval": video.refresh_interval})})
