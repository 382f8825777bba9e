"""Windows over the frames of a long video (paper: 16 frames, stride 8) and how overlapping predictions blend (ours)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

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
    """Weighted mean of overlapping windows' predictions: all of them at once, the plain form of `Blending`."""
    shape = (parts[0].shape[0], num_frames, *parts[0].shape[2:])
    total, weight = torch.zeros(shape, dtype=parts[0].dtype, device=parts[0].device), torch.zeros(num_frames, device=parts[0].device)
    for part, window in zip(parts, where, strict=True):
        weights = blend_weights(part.shape[1]).to(part)
        total[:, window] += part * weights[:, None, None]
        weight[window] += weights
    return total / weight[:, None, None]


@dataclass(frozen=True)
class Blended:
    """What is known after some windows."""

    frames: slice
    """Frames that no later window holds."""
    mean: Float[Tensor, "C F h w"]
    """Their weighted means."""
    pending: Float[Tensor, "C G h w"]
    """Weighted sums of the frames right after those, to which later windows still add."""


@dataclass(frozen=True)
class Blending:
    """The weighted mean of overlapping windows, some windows at a time and in their order: memory for a few windows, not for the video.

    Sums are taken in the order of `blend`, and so are equal to the bit. Weights are made once and stay on `device`."""

    where: list[slice]
    num_frames: int
    device: torch.device

    @cached_property
    def _window_weights(self) -> Float[Tensor, " F"]:
        """All windows of a video have one length."""
        return blend_weights(self.where[0].stop - self.where[0].start).to(self.device)

    @cached_property
    def _weight(self) -> Float[Tensor, " N"]:
        """Sum of the weights of each frame's windows."""
        weight = torch.zeros(self.num_frames, device=self.device)
        for window in self.where:
            weight[window] += self._window_weights
        return weight

    def add(self, first: int, parts: Iterable[Float[Tensor, "C F h w"]], pending: Float[Tensor, "C G h w"] | None) -> Blended:
        """Adds the predictions of the windows from number `first` on to the sums of those before (None: there were none)."""
        parts = list(parts)
        begin, next_window = self.where[first].start, first + len(parts)
        total = parts[0].new_zeros(parts[0].shape[0], self.where[next_window - 1].stop - begin, *parts[0].shape[2:])
        if pending is not None:
            total[:, : pending.shape[1]] += pending
        for part, window in zip(parts, self.where[first:next_window], strict=True):
            total[:, window.start - begin : window.stop - begin] += part * self._window_weights[:, None, None]
        end = self.num_frames if next_window == len(self.where) else self.where[next_window].start
        frames = slice(begin, end)
        return Blended(frames, total[:, : end - begin] / self._weight[frames, None, None], total[:, end - begin :].clone())


def borders(where: list[slice]) -> list[int]:
    """Frames n between which and n + 1 a window begins or ends: where a seam would show."""
    num_frames = where[-1].stop
    edges = {w.start for w in where} | {w.stop for w in where}
    return sorted(edge - 1 for edge in edges if 0 < edge < num_frames)
