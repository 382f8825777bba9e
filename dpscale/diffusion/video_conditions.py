"""Conditions of a whole video: made once, a window at a time, and kept across refreshes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dpscale.config.schema import DiffusionConfig
from dpscale.diffusion.conditions import Conditions
from dpscale.diffusion.denoiser import PoseDenoiser
from dpscale.diffusion.windows import Blending, windows

Maps = dict[str, Tensor]
"""Pose maps by kind, each Float[Tensor, "F c H W"]."""


@dataclass(frozen=True)
class VideoConditions:
    """What the denoiser is told of N frames of one video, on its device."""

    pose_features: Float[Tensor, "P N h w"]
    image_embedding: Float[Tensor, "1 D"]
    references: tuple[Float[Tensor, "_ N h w"], ...] = ()
    """Channels of the reference latents, in order, in one or more pieces: a still background is one picture, expanded to N."""

    @property
    def num_frames(self) -> int:
        return self.pose_features.shape[1]

    def at(self, where: Sequence[slice], guided: bool) -> Conditions:
        """Of some windows of equal length, as a batch; `guided`: followed by the same windows without identity (a zero embedding)."""
        batch = [*where, *where] if guided else where
        identity = self.image_embedding.expand(len(where), -1, -1)
        return Conditions(
            pose_maps={},
            image_embedding=torch.cat([identity, torch.zeros_like(identity)]) if guided else identity,
            reference_latents=torch.stack([torch.cat([r[:, w] for r in self.references]) for w in batch]) if self.references else None,
            pose_features=torch.stack([self.pose_features[:, w] for w in batch]),
        )


def video_conditions(denoiser: PoseDenoiser, conditions: Conditions, settings: DiffusionConfig) -> VideoConditions:
    """From the conditions of one clip (B = 1) whose pose maps are all in memory."""
    maps = conditions.pose_maps
    num_frames = next(iter(maps.values())).shape[1]
    features = encode_poses(denoiser, lambda frames: {kind: m[0, frames] for kind, m in maps.items()}, num_frames, settings)
    references = () if conditions.reference_latents is None else (conditions.reference_latents[0],)
    return VideoConditions(features, conditions.image_embedding[0], references)


@torch.no_grad()
def encode_poses(denoiser: PoseDenoiser, draw: Callable[[slice], Maps], num_frames: int, settings: DiffusionConfig) -> Float[Tensor, "P N h w"]:
    """Pose features of N frames, encoded in the windows in which the frames are denoised. `draw` makes the maps of some frames: only those of
    one window are ever in memory."""
    where = windows(num_frames, settings.window, settings.stride)
    features, blending, pending = None, None, None
    for number, maps in enumerate(_window_maps(draw, where)):
        part = denoiser.encode_pose({kind: m[None] for kind, m in maps.items()})[0]
        if features is None or blending is None:
            features = part.new_empty(part.shape[0], num_frames, *part.shape[2:])
            blending = Blending(where, num_frames, part.device)
        blended = blending.add(number, [part], pending)
        features[:, blended.frames], pending = blended.mean, blended.pending
    assert features is not None, "a video has at least one window"
    return features


def _window_maps(draw: Callable[[slice], Maps], where: list[slice]) -> Iterator[Maps]:
    """Maps of every window; those of frames that the window before holds too are taken from there."""
    before, maps = slice(0, 0), {}
    for window in where:
        fresh = draw(slice(max(window.start, before.stop), window.stop))
        overlap = max(0, before.stop - window.start)
        maps = {kind: torch.cat([maps[kind][-overlap:], m]) if overlap else m for kind, m in fresh.items()}
        yield maps
        before = window
