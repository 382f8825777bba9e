"""What the denoiser is told: where the body is, who it is, and what known frames look like in this pose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from dpscale.data.types import Pose

NUM_PARTS = 24
POSE_CHANNELS = {"keypoints": 3, "iuv": NUM_PARTS + 2}
"""Channels of each pose kind's map: the coloured skeleton; one channel a part, then u and v."""

LIMBS = (
    (1, 2),
    (1, 5),
    (2, 3),
    (3, 4),
    (5, 6),
    (6, 7),
    (1, 8),
    (8, 9),
    (9, 10),
    (1, 11),
    (11, 12),
    (12, 13),
    (1, 0),
    (0, 14),
    (14, 16),
    (0, 15),
    (15, 17),
)
"""Limbs of OpenPose's COCO model, as pairs of keypoints."""

_MIN_CONFIDENCE = 0.2


@dataclass(frozen=True)
class Conditions:
    """Conditions of B clips of F frames. `pose_maps` are raw; `pose_features`, once computed, stand in for them."""

    pose_maps: dict[str, Float[Tensor, "B F c H W"]]
    image_embedding: Float[Tensor, "B 1 D"]
    reference_latents: Float[Tensor, "B R F h w"] | None = None
    """References.latents, for a denoiser that uses them: R = 2 C channels, known frames warped and their background."""
    pose_features: Float[Tensor, "B P F h w"] | None = None

    def without_identity(self) -> Conditions:
        """The unconditional half of classifier-free guidance: a zero image embedding."""
        return replace(self, image_embedding=torch.zeros_like(self.image_embedding))


def pose_maps(pose: Pose, kinds: Sequence[str], resolution: int) -> dict[str, Float[Tensor, "N c R R"]]:
    """Maps of a pose sequence, `resolution` px square, values in 0..1; finer input is averaged, so that coverage is kept."""
    size = pose.iuv.shape[1]
    draw = {"keypoints": lambda: skeleton_maps(torch.from_numpy(np.asarray(pose.keypoints, np.float32)), size, resolution),
            "iuv": lambda: iuv_maps(torch.from_numpy(pose.iuv), resolution)}  # fmt: skip
    return {kind: draw[kind]() for kind in kinds}


def iuv_maps(iuv: UInt8[Tensor, "N H W 3"], resolution: int) -> Float[Tensor, "N c R R"]:
    """One channel for the coverage by each part, then u and v (zero off the body)."""
    part = iuv[..., 0].long()
    coverage = F.one_hot(part, NUM_PARTS + 1)[..., 1:]
    planes = torch.cat([coverage.float(), iuv[..., 1:].float() / 255], -1).permute(0, 3, 1, 2)
    return F.adaptive_avg_pool2d(planes, resolution)


def skeleton_maps(keypoints: Float[Tensor, "N 18 3"], size: int, resolution: int) -> Float[Tensor, "N 3 R R"]:
    """The skeleton as OpenPose draws it: each limb a line with a soft edge, in its own hue."""
    hues = torch.arange(len(LIMBS)) / len(LIMBS) * 2 * torch.pi
    colours = 0.5 + 0.5 * torch.cos(hues[:, None] - torch.tensor([0.0, 2 * torch.pi / 3, 4 * torch.pi / 3]))
    grid = (torch.arange(resolution) + 0.5) * (size / resolution)
    pixels = torch.stack(torch.meshgrid(grid, grid, indexing="xy"), -1).reshape(-1, 2)
    canvas = torch.zeros(len(keypoints), 3, resolution * resolution)
    for (start, end), colour in zip(LIMBS, colours, strict=True):
        a, b = keypoints[:, start], keypoints[:, end]
        confidence = (torch.minimum(a[:, 2], b[:, 2]) > _MIN_CONFIDENCE).float()
        axis = b[:, :2] - a[:, :2]
        offset = pixels - a[:, None, :2]
        along = ((offset * axis[:, None]).sum(-1) / (axis.square().sum(-1, keepdim=True) + 1e-6)).clamp(0, 1)
        distance = (offset - along[..., None] * axis[:, None]).norm(dim=-1)
        ink = torch.exp(-((distance / (size / 64)) ** 2)) * confidence[:, None]
        canvas = torch.maximum(canvas, ink[:, None] * colour[:, None])
    return canvas.reshape(-1, 3, resolution, resolution)
