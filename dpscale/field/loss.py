"""Losses of the video representation, and the samples on which a step takes them (DiffPerformer Eq. 6-8)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from dpscale.field.video_field import VideoField


def reconstruction_loss(colours: Float[Tensor, "S 3"], targets: Float[Tensor, "S 3"]) -> Float[Tensor, ""]:
    """Eq. 8, L_rec = sum_n || V_p[n] - V_s[n] ||_1, as a mean over samples and channels (ours), so that lambda means the same at every size."""
    return (colours - targets).abs().mean()


def flow_loss(here: Float[Tensor, "S 2"], there: Float[Tensor, "S 2"], flow: Float[Tensor, "S 2"]) -> Float[Tensor, ""]:
    """Eq. 7, || D(H(x, y, n)) - D(H((x, y) + F, n + 1)) - F ||_1 as a mean: both ends of the flow land on the same canonical point.

    `here` and `there` are the displacements at the two ends; all in parts of width and height. No samples: zero."""
    return (here - there - flow).abs().sum() / max(1, here.numel())


@dataclass(frozen=True)
class HumanFlow:
    """The pixels at which the human flow is known. Pixels are counted over the whole video, as in VideoField.points."""

    pixels: Int[Tensor, " M"]
    flow: Float[Tensor, "M 2"]
    """n -> n + 1 at those pixels, in parts of width and height."""

    @classmethod
    def of(cls, flow: Float[Tensor, "N H W 2"], valid: Bool[Tensor, "N H W"], body: Bool[Tensor, "N H W"], background: bool) -> HumanFlow:
        """Flow at the valid pixels; with `background` also zero flow where neither n nor n + 1 shows the body."""
        known = valid.clone()
        known[-1] = False
        if background:
            known[:-1] |= ~body[:-1] & ~body[1:]
        pixels = known.flatten().nonzero()[:, 0]
        return cls(pixels, torch.where(valid[..., None], flow, 0.0).reshape(-1, 2)[pixels])


@dataclass(frozen=True)
class Samples:
    """What one step looks at."""

    points: Float[Tensor, "S 3"]
    targets: Float[Tensor, "S 3"]
    """V_p at `points`, 0..1."""
    flow_from: Float[Tensor, "R 3"]
    flow_to: Float[Tensor, "R 3"]
    flow: Float[Tensor, "R 2"]


def draw_samples(
    field: VideoField,
    targets: UInt8[Tensor, "N H W 3"],
    human_flow: HumanFlow | None,
    num_pixels: int,
    num_flow_pixels: int,
    generator: torch.Generator,
) -> Samples:
    """Pixels over all frames, and pixels with a known flow, uniformly with replacement. The (CPU) generator alone decides which.

    `targets` and `human_flow` may lie in host memory, mapped from disk: only what was drawn goes to the field's device."""
    num_all, device = field.num_frames * field.height * field.width, field.device
    pixels = torch.randint(num_all, (num_pixels,), generator=generator)
    points = field.points(pixels.to(device))
    frame, row, column = field.frame_row_column(pixels.to(targets.device))
    colours = targets[frame, row, column].to(device).float() / 255
    if human_flow is None or len(human_flow.pixels) == 0:
        return Samples(points, colours, points[:0], points[:0], points[:0, :2])
    chosen = torch.randint(len(human_flow.pixels), (num_flow_pixels,), generator=generator).to(human_flow.pixels.device)
    flow = human_flow.flow[chosen].to(device)
    start = field.points(human_flow.pixels[chosen].to(device))
    step = torch.cat([flow, torch.full_like(flow[:, :1], 1 / field.num_frames)], dim=1)
    return Samples(points, colours, start, start + step, flow)


@dataclass(frozen=True)
class Losses:
    total: Float[Tensor, ""]
    reconstruction: Float[Tensor, ""]
    flow: Float[Tensor, ""]

    def detached(self) -> Losses:
        """Numbers only: keeping them keeps no graph alive."""
        return Losses(self.total.detach(), self.reconstruction.detach(), self.flow.detach())


def ivr_loss(field: VideoField, samples: Samples, flow_weight: float) -> Losses:
    """Eq. 6, L_ivr = L_rec + lambda L_flow. The deformation is evaluated once, for all points together."""
    sizes = [len(samples.points), len(samples.flow_from), len(samples.flow_to)]
    displacements = field.deformation(torch.cat([samples.points, samples.flow_from, samples.flow_to]))
    at_points, here, there = displacements.split(sizes)
    reconstruction = reconstruction_loss(field.colours(samples.points, at_points), samples.targets)
    flow = flow_loss(here, there, samples.flow)
    return Losses(reconstruction + flow_weight * flow, reconstruction, flow)
