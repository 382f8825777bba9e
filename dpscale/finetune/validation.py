"""How the performer looks half-way through training: held-out frames, sampled from noise by the model as it stands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import UInt8

from dpscale.config.schema import DiffusionConfig
from dpscale.data.seeds import derive
from dpscale.data.types import Clip, Pose
from dpscale.diffusion.conditions import Conditions, pose_maps
from dpscale.diffusion.reference import known_frames, reference_pictures
from dpscale.diffusion.refine import refine
from dpscale.diffusion.weights import PoseVideoModel, References

NUM_FRAMES = 8
"""Held-out frames of one validation video, the first ones."""


@dataclass(frozen=True)
class HeldOutVideo:
    """Samples the same frames from the same noise whenever it is called, and draws no random number of the training."""

    model: PoseVideoModel
    clip: Clip
    settings: DiffusionConfig
    seed: int
    device: str = "cpu"

    @cached_property
    def _pose(self) -> Pose:
        return self.clip.pose.at(np.arange(self.clip.num_train, min(len(self.clip), self.clip.num_train + NUM_FRAMES)))

    @cached_property
    def _references(self) -> References | None:
        """The warped training frames, for models that take them."""
        if not self.model.denoiser.use_reference:
            return None
        return self.model.encode_references(reference_pictures(known_frames(self.clip), self._pose.keypoints, self._pose.iuv))

    @torch.no_grad()
    def __call__(self) -> UInt8[np.ndarray, "F H W 3"]:
        maps = pose_maps(self._pose, self.settings.pose_kinds, self.model.denoiser.pose_encoder.resolution)
        embedding = torch.from_numpy(np.asarray(self.clip.image_embedding, np.float32)).to(self.device)
        conditions = Conditions(
            pose_maps={kind: m[None].to(self.device) for kind, m in maps.items()},
            image_embedding=embedding[None, None],
            reference_latents=None if self._references is None else self._references.latents,
        )
        seed = derive(self.seed, "validate", self.clip.performer)
        latents = refine(self.model.denoiser, self.model.noise_schedule, conditions, None, 1.0, self.settings, seed)
        return self.model.decode(latents, self._references)
