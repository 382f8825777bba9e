"""Losses of the video representation, and the samples on which a step takes them (DiffPerformer Eq. 6-8)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from dpscale.config.field import NeighbourLossesConfig
from dpscale.field.video_field import VideoField

NO_NEIGHBOURS = NeighbourLossesConfig()


def reconstruction_loss(colours: Float[Tensor, "S 3"], targets: Float[Tensor, "S 3"]) -> Float[Tensor, ""]:
    """Eq. 8, L_rec = sum_n || V_p[n] - V_s[n] ||_1, as a mean over samples and channels (ours), so that lambda means the same at every size."""
    return (colours - targets).abs().mean()


def flow_loss(
    here: Float[Tensor, "R K 2"], there: Float[Tensor, "R K 2"], flow: Float[Tensor, "R 2"], weights: Float[Tensor, "R K"]
) -> Float[Tensor, ""]:
    """Eq. 7, || D(H(x, y, n)) - D(H((x, y) + F, n + 1)) - F ||_1 as a mean: both ends of the flow land on the same canonical point.

    `here` and `there` are the displacements at the two ends; all in parts of width and height. With several canonical images each is
    compared with itself alone, and counts by `weights` (its part in both frames: 1 where there is one). No samples: zero."""
    return ((here - there - flow[:, None]).abs() * weights[..., None]).sum() / max(1, flow.numel())


def gradient_loss(colours: Float[Tensor, "3 P 3"], targets: Float[Tensor, "3 P 3"]) -> Float[Tensor, ""]:
    """|| grad V_p - grad V_s ||_1 as a mean over samples, axes and channels, per px: edges are as sharp and where they are in the targets.

    Colours at a pixel, right of it and below it. CoDeF's gradient loss, which takes Sobel's gradients of grey pictures; we take
    differences of neighbours in each channel, so that samples suffice and no whole frame is needed. No samples: zero."""
    rendered, wanted = (picture[1:] - picture[:1] for picture in (colours, targets))
    return (rendered - wanted).abs().sum() / max(1, wanted.numel())


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
class Neighbours:
    """P pixels and, in this order, those right of them, below them, and at the same place in the next frame (in the last frame: itself)."""

    points: Float[Tensor, "4 P 3"]
    targets: Float[Tensor, "3 P 3"]
    """V_p at the first three, 0..1."""


@dataclass(frozen=True)
class Samples:
    """What one step looks at."""

    points: Float[Tensor, "S 3"]
    targets: Float[Tensor, "S 3"]
    """V_p at `points`, 0..1."""
    flow_from: Float[Tensor, "R 3"]
    flow_to: Float[Tensor, "R 3"]
    flow: Float[Tensor, "R 2"]
    neighbours: Neighbours


def draw_samples(
    field: VideoField,
    targets: UInt8[Tensor, "N H W 3"],
    human_flow: HumanFlow | None,
    num_pixels: int,
    num_flow_pixels: int,
    generator: torch.Generator,
    num_neighbours: int = 0,
) -> Samples:
    """Pixels over all frames, pixels with a known flow, and pixels with neighbours, each uniformly with replacement. The (CPU) generator
    alone decides which.

    `targets` and `human_flow` may lie in host memory, mapped from disk: only what was drawn goes to the field's device."""
    num_all, device = field.num_frames * field.height * field.width, field.device
    pixels = torch.randint(num_all, (num_pixels,), generator=generator)
    points, colours = field.points(pixels.to(device)), _read(targets, field, pixels)
    start = end = points[:0]
    flow = start[:, :2]
    if human_flow is not None and len(human_flow.pixels) > 0:
        chosen = torch.randint(len(human_flow.pixels), (num_flow_pixels,), generator=generator).to(human_flow.pixels.device)
        flow, start = human_flow.flow[chosen].to(device), field.points(human_flow.pixels[chosen].to(device))
        end = start + torch.cat([flow, torch.full_like(flow[:, :1], 1 / field.num_frames)], dim=1)
    return Samples(points, colours, start, end, flow, _draw_neighbours(field, targets, num_neighbours, generator))


def _draw_neighbours(field: VideoField, targets: UInt8[Tensor, "N H W 3"], count: int, generator: torch.Generator) -> Neighbours:
    """From all pixels that have one to the right and one below."""
    columns, rows = field.width - 1, field.height - 1
    index = torch.randint(field.num_frames * rows * columns, (count,), generator=generator)
    frame, row, column = index // (rows * columns), index // columns % rows, index % columns
    here = (frame * field.height + row) * field.width + column
    after = torch.where(frame < field.num_frames - 1, here + field.height * field.width, here)
    pixels = torch.stack([here, here + 1, here + field.width, after])
    points, colours = field.points(pixels.flatten().to(field.device)), _read(targets, field, pixels[:3].flatten())
    return Neighbours(points.view(4, count, 3), colours.view(3, count, 3))


def _read(targets: UInt8[Tensor, "N H W 3"], field: VideoField, pixels: Int[Tensor, " S"]) -> Float[Tensor, "S 3"]:
    """0..1, on the field's device."""
    return targets.flatten(0, 2).index_select(0, pixels.to(targets.device)).to(field.device).float() / 255


@dataclass(frozen=True)
class Losses:
    total: Float[Tensor, ""]
    reconstruction: Float[Tensor, ""]
    flow: Float[Tensor, ""]
    gradient: Float[Tensor, ""]
    space_variation: Float[Tensor, ""]
    time_variation: Float[Tensor, ""]

    def detached(self) -> Losses:
        """Numbers only: keeping them keeps no graph alive."""
        return Losses(*(value.detach() for value in vars(self).values()))


def ivr_loss(field: VideoField, samples: Samples, flow_weight: float, beside: NeighbourLossesConfig = NO_NEIGHBOURS) -> Losses:
    """Eq. 6, L_ivr = L_rec + lambda L_flow, and the losses on neighbours that have a weight. The deformation is evaluated once, for all
    points together."""
    num_points, (num_beside, num_neighbours) = len(samples.points), samples.neighbours.points.shape[:2]
    points = torch.cat([samples.points, samples.neighbours.points.flatten(0, 1)])
    displacements = field.displacements(points, torch.cat([samples.flow_from, samples.flow_to]))
    at_points, here, there = displacements.split([len(points), len(samples.flow), len(samples.flow)])
    num_coloured = num_points + 3 * num_neighbours
    colours = field.colours(points[:num_coloured], at_points[:num_coloured])
    reconstruction = reconstruction_loss(colours[:num_points], samples.targets)
    flow = flow_loss(here, there, samples.flow, torch.minimum(field.weights_at(samples.flow_from), field.weights_at(samples.flow_to)))
    total = reconstruction + flow_weight * flow
    gradient = gradient_loss(colours[num_points:].view(3, num_neighbours, 3), samples.neighbours.targets)
    space, time = total_variation(field, samples.neighbours.points, at_points[num_points:].unflatten(0, (num_beside, num_neighbours)))
    if num_neighbours > 0:
        total = total + beside.gradient_weight * gradient + beside.space_weight * space + beside.time_weight * time
    return Losses(total, reconstruction, flow, gradient, space, time)


def total_variation(
    field: VideoField, points: Float[Tensor, "4 P 3"], displacements: Float[Tensor, "4 P K 2"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """|| dD / d(x, y) ||_1 as a mean over samples, axes and components, D and (x, y) in parts of width and height; and || D(n + 1) - D(n) ||_1
    in parts of the picture a frame, as a mean over samples and components.

    `points` and `displacements` are those of neighbours. Pairs of which one end shows the background alone count as zero, and so does
    the last frame's step in time; a canonical image counts by its part in both frames. No samples: zero."""
    weights, body = field.weights_at(points.flatten(0, 1)).unflatten(0, points.shape[:2]), field.opacity(points.flatten(0, 1)) > 0
    shown = body.unflatten(0, points.shape[:2])
    part = torch.minimum(weights[1:], weights[:1]) * (shown[1:] & shown[:1])[..., None]
    right, below, later = ((displacements[1:] - displacements[:1]).abs() * part[..., None]).sum((1, 2, 3))
    num_values = max(1, 2 * points.shape[1])
    return (right * field.width + below * field.height) / (2 * num_values), later / num_values
