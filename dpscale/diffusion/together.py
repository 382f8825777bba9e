"""Windows of several videos of one performer in one UNet call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dpscale.diffusion.conditions import Conditions
from dpscale.diffusion.refine import Pass, Progress


@torch.no_grad()
def advance_together(passes: Sequence[tuple[Pass, Progress]]) -> None:
    """Pass.advance for each of several passes, at whatever step it is, with one UNet call for all. Passes may come and go between calls.

    The progress of each is that of Pass.advance up to rounding: batches of another size may take other kernels. A call holds as many
    windows as theirs together, so memory grows with `window_batch` times the number of passes. Raises ValueError where they have not one
    denoiser, or windows of different shapes."""
    calls = [sampling.next_call(progress) for sampling, progress in passes]
    denoiser = passes[0][0].denoiser
    if any(sampling.denoiser is not denoiser for sampling, _ in passes):
        raise ValueError("passes of different denoisers cannot share a UNet call: take the videos of one performer")
    shapes = {tuple(call.noisy.shape[1:]) for call in calls}
    if len(shapes) > 1:
        raise ValueError(f"windows of different shapes (C, F, h, w) cannot share a UNet call: {sorted(shapes)}")
    noisy, timestep = torch.cat([call.noisy for call in calls]), torch.cat([call.timestep for call in calls])
    predictions = denoiser(noisy, timestep, _joined([call.conditions for call in calls])).split([len(call.noisy) for call in calls])
    for (sampling, progress), call, prediction in zip(passes, calls, predictions, strict=True):
        sampling.take(progress, call, prediction)


def _joined(conditions: Sequence[Conditions]) -> Conditions:
    """Of all, one after the other, where pose maps are encoded already."""

    def joined(name: str) -> Tensor | None:
        found = [getattr(told, name) for told in conditions]
        return None if found[0] is None else torch.cat(found)

    embedding = torch.cat([told.image_embedding for told in conditions])
    return Conditions({}, embedding, joined("reference_latents"), joined("pose_features"))
