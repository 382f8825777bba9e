"""One step of denoiser finetuning: which frames, under which conditions, with which noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dpscale.config.schema import FinetuneConfig
from dpscale.data.seeds import derive
from dpscale.data.types import Clip, InputError
from dpscale.diffusion.loss import body_weights, diffusion_loss
from dpscale.diffusion.weights import PoseVideoModel
from dpscale.finetune.frame_conditions import FrameConditions
from dpscale.finetune.memory import autocast


@dataclass(frozen=True)
class Worker:
    """One of `size` data-parallel processes."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    def sample(self, step: int) -> int:
        """Number of the sample that this worker takes at `step`: together the workers take the samples that one worker would take in `size` steps."""
        return step * self.size + self.rank


ALONE = Worker()


def num_steps(finetune: FinetuneConfig, num_train: int, world_size: int) -> int:
    """`epochs` passes over the training frames: a step sees clip_frames of them in each clip of each worker (METHOD 2)."""
    steps = math.ceil(finetune.epochs * num_train / (finetune.clip_frames * finetune.clips_per_worker * world_size))
    return steps if finetune.max_steps is None else min(steps, finetune.max_steps)


def sample_frames(num_train: int, clip_frames: int, generator: torch.Generator) -> Int[Tensor, " F"]:
    """Frames of the training part at random, without repetition, in temporal order; all of them where there are fewer than `clip_frames`."""
    return torch.randperm(num_train, generator=generator)[:clip_frames].sort().values


@dataclass(frozen=True)
class DenoiserStep:
    """Step i -> Eq. 1 on `clip_frames` random frames of the performer. A pure function of (seed, performer, sample), so a resumed run repeats it."""

    model: PoseVideoModel
    clip: Clip
    pose_kinds: tuple[str, ...]
    clip_frames: int
    condition_dropout: float
    body_weight: float
    loss: Literal["l2", "l1"]
    seed: int
    worker: Worker = ALONE
    precision: Literal["fp32", "bf16"] = "fp32"
    cache_bytes: int = 2**30
    """Of host memory for conditions of frames."""

    def __call__(self, step: int) -> Float[Tensor, ""]:
        generator = torch.Generator().manual_seed(derive(self.seed, "finetune", self.clip.performer, self.worker.sample(step)))
        frames = sample_frames(self.clip.num_train, self.clip_frames, generator)
        dropped = float(torch.rand((), generator=generator)) < self.condition_dropout
        gap = int(torch.randint(max(1, self.clip.num_train // 4), (), generator=generator))
        conditions = self._conditions_of(frames.numpy(), gap)
        latents = self._tensor(self.clip.latents[frames.numpy()]).transpose(0, 1)[None]
        if dropped:
            conditions = conditions.without_identity()
        weight = self._weight(frames.numpy(), latents.shape[-2:])
        with autocast(self.precision, self.worker.device):
            return diffusion_loss(self.model.denoiser, self.model.noise_schedule, latents, conditions, generator, weight, self.loss)

    @cached_property
    def _conditions_of(self) -> FrameConditions:
        return FrameConditions(self.model, self.clip, self.pose_kinds, self.worker.device, self.cache_bytes)

    def _weight(self, frames: Int[np.ndarray, " F"], size: tuple[int, int]) -> Float[Tensor, "1 1 F h w"] | None:
        if self.body_weight == 0:
            return None
        body = torch.from_numpy(self.clip.pose.iuv[frames, ..., 0] > 0)
        return body_weights(body[None], size, self.body_weight).to(self.worker.device)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(array, np.float32)).to(self.worker.device)


def check_clip(clip: Clip, model: PoseVideoModel, shard: str) -> None:
    """Raises InputError where a clip cannot train this model."""
    if clip.frames is None or clip.latents is None or clip.image_embedding is None:
        raise InputError(f"{shard} has no frames, latents or image embedding: preprocess the performer's own video as clip 'main'")
    if not 1 <= clip.num_train <= len(clip):
        raise InputError(f"{shard} has {clip.num_train} training frames of {len(clip)}: change preprocess.train_fraction")
    autoencoder = model.autoencoder
    size = tuple(pixels // autoencoder.downscale for pixels in clip.frames.shape[1:3])
    expected = {
        "latents": (clip.latents.shape, (len(clip), autoencoder.latent_channels, *size)),
        "an image embedding": (clip.image_embedding.shape, (model.denoiser.unet.config.cross_attention_dim,)),
    }
    for what, (found, wanted) in expected.items():
        if found != wanted:
            raise InputError(
                f"{shard} has {what} of shape {found}, this model takes {wanted}: made with another model; delete it and preprocess again"
            )
