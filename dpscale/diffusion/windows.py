"""Windows over the frames of a long video (paper: 16 frames, stride 8) and how overlapping predictions blend (ours)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def windows(num_frames: int, window: int, stride: int) -> list[slice]:
    """Slices of at most `window` frames, `stride` apart, that cover all frames; the last one ends with the video."""
    if num_frames <= window:
        return [slice(0, num_frames)]
    starts = [*list(range(0, num_frames - window, stride)), num_frames - window]
    return [slice(start, start + window) for start in starts]


def blend_weights(length: int) -> Float[Tensor, " F"]:
    """Triangular weights, greatest in the middle of a window, never zero."""
    position = torch.arange(length) + 0.5
    return torch.minimum(position, length - position)


def blend(parts: list[Float[Tensor, "C F h w"]], where: list[slice], num_frames: int) -> Float[Tensor, "C N h w"]:
    """Weighted mean of overlapping windows' predictions."""
    shape = (parts[0].shape[0], num_frames, *parts[0].shape[2:])
    total, weight = torch.zeros(shape, dtype=parts[0].dtype, device=parts[0].device), torch.zeros(num_frames, device=parts[0].device)
    for part, window in zip(parts, where, strict=True):
        weights = blend_weights(part.shape[1]).to(part)
        total[:, window] += part * weights[:, None, None]
        weight[window] += weights
    return total / weight[:, None, None]
