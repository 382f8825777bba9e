"""What a training step is told about its frames, and no noise enters: made once a frame, and kept in memory up to a bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dpscale.data.types import Clip
from dpscale.diffusion.conditions import Conditions, pose_maps
from dpscale.diffusion.reference import KnownFrames, Sources, apart, known_frames, nearest_sources, warped_picture
from dpscale.diffusion.weights import PoseVideoModel


class Kept:
    """Tensors by key, at most `max_bytes` of them: the one that was not asked for longest goes first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._tensors: OrderedDict[Hashable, Tensor] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The tensor of `key`, on the CPU; made if it is not here."""
        if key in self._tensors:
            self._tensors.move_to_end(key)
            return self._tensors[key]
        tensor = make().cpu()
        self._tensors[key] = tensor
        self._bytes += tensor.nbytes
        while self._bytes > self._max_bytes:
            self._bytes -= self._tensors.popitem(last=False)[1].nbytes
        return tensor


@dataclass(frozen=True)
class FrameConditions:
    """(frames, gap) -> Conditions of one clip of training frames. Each frame is made alone, so that what is kept equals what is made anew
    to the bit, whichever frames came with it."""

    model: PoseVideoModel
    clip: Clip
    pose_kinds: tuple[str, ...]
    device: str = "cpu"
    max_bytes: int = 2**30

    def __call__(self, frames: Int[np.ndarray, " F"], gap: int) -> Conditions:
        """Who: embedding of I_ref, frame 0, and looks from training frames more than `gap` away. What: the pose in `frames`."""
        return Conditions(
            pose_maps={kind: torch.stack([self._pose_map(kind, int(n)) for n in frames])[None].to(self.device) for kind in self.pose_kinds},
            image_embedding=torch.from_numpy(np.asarray(self.clip.image_embedding, np.float32)).to(self.device)[None, None],
            reference_latents=self._references(frames, gap) if self.model.denoiser.use_reference else None,
        )

    @cached_property
    def _kept(self) -> Kept:
        return Kept(self.max_bytes)

    @cached_property
    def _known(self) -> KnownFrames:
        """The training frames; like those held out, a frame is made from others, so that training asks what use will ask."""
        return known_frames(self.clip)

    @cached_property
    def _background(self) -> Float[Tensor, "1 C h w"]:
        return self.model.encode(self._known.background[None])

    def _pose_map(self, kind: str, frame: int) -> Float[Tensor, "c R R"]:
        def make() -> Tensor:
            return pose_maps(self.clip.pose.at(slice(frame, frame + 1)), (kind,), self.model.denoiser.pose_encoder.resolution)[kind][0]

        return self._kept.get((kind, frame), make)

    def _references(self, frames: Int[np.ndarray, " F"], gap: int) -> Float[Tensor, "1 R F h w"]:
        """References.latents of `frames`. The gap only decides which frames they are drawn from: few choices, met again and again."""
        usable = apart(self.clip.num_train, gap)[frames]
        sources = nearest_sources(self._known, self.clip.pose.keypoints[frames], usable)
        warped = torch.stack([self._warped(int(n), where) for n, where in zip(frames, sources, strict=True)]).to(self.device)
        return torch.cat([warped, self._background.expand_as(warped)], 1).transpose(0, 1)[None]

    def _warped(self, frame: int, sources: Sources) -> Float[Tensor, "C h w"]:
        """Latent of the picture that `sources` give of a frame."""

        def make() -> Tensor:
            return self.model.encode(warped_picture(self._known, sources, self.clip.pose.iuv[frame])[None])[0]

        return self._kept.get((frame, *sources.frames.tolist()), make)
