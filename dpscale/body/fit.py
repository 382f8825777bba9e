"""Fits the embedded body to one person in one uncalibrated video: lengths and widths of the body, movement, place.

First to landmarks; then, where the person's outline is known, the body's rim to it as well. A wide prior (focal length 1.2 times the
longer side of the picture) stands in for the calibration. Camera axes: x right, y down, z forward, metres; the same axes as
BlazePose's world landmarks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dpscale.body.first_guess import first_root, torso_frame
from dpscale.body.fit_skeleton import LANDMARK_OF_KEYPOINT, FitSkeleton, as_tensor, fit_skeleton, moving_skin, nearest_moving, rotation_matrices
from dpscale.body.outline import Outlines, Rim, find_rim, fit_girths
from dpscale.body.parametric import SCALE_SEGMENTS, BodyModel, load_body
from dpscale.body.rest_surface import NUM_GIRTHS
from dpscale.data.types import BodyMotion, BodyShape

FOCAL_PRIOR = 1.2
"""Focal length over the longer side of the picture: a phone's main camera."""

_FACE, _HIPS = 0.3, 0.5
"""Weights of landmarks whose place on the body BlazePose and the embedded body see differently."""


_PX_WEIGHT, _WORLD_WEIGHT, _REST_WEIGHT, _ANGLE_SMOOTH, _PATH_SMOOTH, _LENGTH_PRIOR, _SIZE_PRIOR = 4.0, 0.5, 0.2, 60.0, 400.0, 1.0, 3.0
_WORLD_SIGMA_M, _ROBUST_PX, _LR_END = 0.15, 3.0, 0.09
_BLOCK_FRAMES = 1000
"""Longer clips are computed in blocks, so that memory does not grow with the tensors that backward needs."""
_OUTLINE_WEIGHT, _OUTLINE_ROUNDS, _OUTLINE_STEPS = 8.0, 3, 0.3
"""Weight of the rim's misses, rounds of looking for the outline and moving towards it, and steps of a round over those of the first fit."""


@dataclass(frozen=True)
class _Targets:
    points_px: Float[Tensor, "N K 2"]
    world: Float[Tensor, "N K 3"]
    confidence: Float[Tensor, "N K"]
    weight: Float[Tensor, " K"]
    hips: list[int]
    unit_px: float
    """In which misses are measured: a fortieth of the person's height."""
    focal_px: float
    center_px: Float[Tensor, " 2"]

    def at(self, frames: slice) -> _Targets:
        return replace(self, points_px=self.points_px[frames], world=self.world[frames], confidence=self.confidence[frames])

    def seen(self, points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 2"]:
        """px in the picture."""
        return self.focal_px * points[..., :2] / points[..., 2:].clamp(min=0.05) + self.center_px


@dataclass(frozen=True)
class _Unknowns:
    """What the optimiser moves."""

    angles: Float[Tensor, "N M 3"]
    root: Float[Tensor, "N 3"]
    log_scales: Float[Tensor, " S"]


def fit_body(
    landmarks: Float[np.ndarray, "N 33 3"],
    world: Float[np.ndarray, "N 33 3"],
    focal_px: float,
    center_px: tuple[float, float],
    steps: int = 300,
    body: BodyModel | None = None,
    outlines: Outlines | None = None,
) -> tuple[BodyShape, BodyMotion]:
    """Shape and movement whose keypoints fall on the landmarks (x, y px and visibility; BlazePose's 33) seen by this camera.

    `world` (metres from the hips) decides what one picture cannot. Shape coefficients stay zero; lengths of segments and, with
    `outlines`, girths are fitted, one set for all frames. Deterministic for a given number of torch threads. On one core 1-2 s for
    100 frames and 300 steps, with outlines about 5 s."""
    body = body or load_body()
    skeleton, targets = fit_skeleton(body), _targets(landmarks, world, focal_px, center_px)
    root_frame = as_tensor(torso_frame(world))
    unknowns = _Unknowns(
        torch.zeros(len(landmarks), len(skeleton.bones), 3, requires_grad=True),
        as_tensor(first_root(landmarks, world, focal_px, center_px)).requires_grad_(),
        torch.zeros(len(SCALE_SEGMENTS), requires_grad=True),
    )
    _optimise(skeleton, targets, root_frame, unknowns, steps, 1.0)
    girths = np.zeros(NUM_GIRTHS if outlines else 0)
    for _ in range(_OUTLINE_ROUNDS if outlines else 0):
        shape, motion = _result(body, skeleton, root_frame, unknowns, girths, focal_px, center_px)
        rim = find_rim(body, body.shaped(shape), motion, outlines, range(len(landmarks)))
        girths = fit_girths(body, _first_frames(rim, outlines.num_train), float(np.exp(shape.log_scales[-1])), girths)
        surface = body.shaped(BodyShape(shape.betas, shape.log_scales, girths)).vertices
        contour = _contour(body, skeleton, surface, rim, len(landmarks))
        _optimise(skeleton, targets, root_frame, unknowns, max(1, round(steps * _OUTLINE_STEPS)), 0.3, contour)
    return _result(body, skeleton, root_frame, unknowns, girths, focal_px, center_px)


def _optimise(
    skeleton: FitSkeleton, targets: _Targets, root_frame: Tensor, unknowns: _Unknowns, steps: int, pace: float, contour: _Contour | None = None
) -> None:
    rates = ((unknowns.angles, 0.03), (unknowns.root, 0.01), (unknowns.log_scales, 0.01))
    optimiser = torch.optim.Adam([{"params": [unknown], "lr": rate * pace} for unknown, rate in rates])
    decay = torch.optim.lr_scheduler.ExponentialLR(optimiser, _LR_END ** (1 / steps))
    for _ in range(steps):
        optimiser.zero_grad()
        _loss(skeleton, targets, root_frame, unknowns, contour).backward()
        optimiser.step()
        decay.step()


@torch.no_grad()
def _result(
    body: BodyModel,
    skeleton: FitSkeleton,
    root_frame: Tensor,
    unknowns: _Unknowns,
    girths: np.ndarray,
    focal_px: float,
    center_px: tuple[float, float],
) -> tuple[BodyShape, BodyMotion]:
    rotations, _ = skeleton.pose(root_frame, unknowns.angles, unknowns.root, _scales(skeleton, unknowns.log_scales))
    every = rotations.numpy()[:, nearest_moving(body, skeleton.bones)]
    shape = BodyShape(np.zeros(body.num_betas), unknowns.log_scales.detach().numpy().astype(float), girths)
    return shape, BodyMotion(every, unknowns.root.detach().numpy().copy(), float(focal_px), (float(center_px[0]), float(center_px[1])))


@dataclass(frozen=True)
class _Contour:
    """Rim vertices as sums over the few bones that move each (else as FitSkeleton's keypoints), and the lines on which they should fall."""

    frame: Int[Tensor, " R"]
    bone: Int[Tensor, "R W"]
    weight: Float[Tensor, "R W"]
    arm: Float[Tensor, "R W 3"]
    target: Float[Tensor, "R 2"]
    normal: Float[Tensor, "R 2"]
    points_per_frame: float
    """On average over the clip."""

    def within(self, start: int, end: int) -> _Contour:
        """The points of some frames, counted from the first of them."""
        own = (self.frame >= start) & (self.frame < end)
        values = (self.bone[own], self.weight[own], self.arm[own], self.target[own], self.normal[own])
        return _Contour(self.frame[own] - start, *values, self.points_per_frame)

    def miss(self, rotations: Float[Tensor, "N M 3 3"], joints: Float[Tensor, "N M 3"], scales: Tensor, targets: _Targets) -> Float[Tensor, " R"]:
        """Distance to the lines in the unit of the landmarks' misses."""
        frame = self.frame[:, None]
        turned = torch.einsum("rwij,rwj->ri", rotations[frame, self.bone], self.arm * scales[self.bone][..., None])
        points = turned + torch.einsum("rw,rwi->ri", self.weight, joints[frame, self.bone])
        off = targets.seen(points) - self.target
        return (off * self.normal).sum(-1) / targets.unit_px


def _contour(body: BodyModel, skeleton: FitSkeleton, surface: Float[np.ndarray, "V 3"], rim: Rim, num_frames: int) -> _Contour:
    skin = moving_skin(body, skeleton.bones)
    most = int((skin > 0).sum(1).max())
    bone = np.argsort(-skin, axis=1, kind="stable")[:, :most]
    weight = np.take_along_axis(skin, bone, 1)
    arm = weight[..., None] * (surface[:, None] - body.heads[list(skeleton.bones)][bone])
    at = rim.vertex
    lines = (as_tensor(weight[at]), as_tensor(arm[at]), as_tensor(rim.target), as_tensor(rim.normal))
    return _Contour(torch.from_numpy(rim.frame), torch.from_numpy(bone[at]), *lines, max(1, len(at)) / num_frames)


def _first_frames(rim: Rim, num_frames: int) -> Rim:
    own = rim.frame < num_frames
    return Rim(rim.frame[own], rim.vertex[own], rim.target[own], rim.normal[own], rim.gap_m[own])


def _loss(skeleton: FitSkeleton, targets: _Targets, root_frame: Tensor, unknowns: _Unknowns, contour: _Contour | None) -> Tensor:
    angles, root, log_scales = unknowns.angles, unknowns.root, unknowns.log_scales
    return (
        _seen_loss(skeleton, targets, root_frame, unknowns, contour)
        + _REST_WEIGHT * (skeleton.stiffness[:, None] * angles.square()).sum(-1).mean()
        + _ANGLE_SMOOTH * (_acceleration(angles[:, 1:]) + _acceleration(root_frame @ rotation_matrices(angles[:, 0])) / 2)
        + _PATH_SMOOTH * _acceleration(root)
        + _LENGTH_PRIOR * log_scales[:-1].square().sum()
        + _SIZE_PRIOR * log_scales[-1].square()
    )


def _seen_loss(skeleton: FitSkeleton, targets: _Targets, root_frame: Tensor, unknowns: _Unknowns, contour: _Contour | None) -> Tensor:
    """What pictures say. Of a long clip backward computes each block of frames again: kept, its tensors would grow with the clip."""
    num_frames = len(unknowns.root)
    if num_frames <= _BLOCK_FRAMES:
        return _block_loss(skeleton, targets, root_frame, unknowns.angles, unknowns.root, unknowns.log_scales, contour)
    total = unknowns.root.new_zeros(())
    for start in range(0, num_frames, _BLOCK_FRAMES):
        here = slice(start, start + _BLOCK_FRAMES)
        part = contour and contour.within(start, start + _BLOCK_FRAMES)
        own = targets.at(here), root_frame[here], unknowns.angles[here], unknowns.root[here], unknowns.log_scales
        total = total + checkpoint(_block_loss, skeleton, *own, part, use_reentrant=False) * (len(own[1]) / num_frames)
    return total


def _block_loss(
    skeleton: FitSkeleton, targets: _Targets, root_frame: Tensor, angles: Tensor, root: Tensor, log_scales: Tensor, contour: _Contour | None
) -> Tensor:
    scales = _scales(skeleton, log_scales)
    rotations, joints = skeleton.pose(root_frame, angles, root, scales)
    points = skeleton.keypoints(rotations, joints, scales)
    robust = _robust((targets.seen(points) - targets.points_px).norm(dim=-1) / targets.unit_px)
    outline = 0.0
    if contour is not None:
        outline = _OUTLINE_WEIGHT * _robust(contour.miss(rotations, joints, scales, targets)).sum() / (contour.points_per_frame * len(root))
    from_hips = points - points[:, targets.hips].mean(1, keepdim=True)
    off_world = (from_hips - targets.world).square().sum(-1) / _WORLD_SIGMA_M**2
    return (
        _PX_WEIGHT * (targets.confidence.square() * targets.weight * robust).mean()
        + _WORLD_WEIGHT * (targets.confidence * targets.weight * off_world).mean()
        + outline
    )


def _robust(miss: Tensor) -> Tensor:
    """Geman and McClure's: far misses stop pulling."""
    return miss.square() / (1 + (miss / _ROBUST_PX).square())


def _acceleration(x: Float[Tensor, "N *d 3"]) -> Tensor:
    if len(x) < 3:
        return x.new_zeros(())
    return (x[2:] - 2 * x[1:-1] + x[:-2]).square().sum(-1).mean()


def _scales(skeleton: FitSkeleton, log_scales: Tensor) -> Float[Tensor, " M"]:
    return torch.exp(log_scales[skeleton.segment] + log_scales[-1])


def _targets(landmarks: np.ndarray, world: np.ndarray, focal_px: float, center_px: tuple[float, float]) -> _Targets:
    index, names = list(LANDMARK_OF_KEYPOINT.values()), list(LANDMARK_OF_KEYPOINT)
    hips = [names.index("left_hip"), names.index("right_hip")]
    weight = torch.ones(len(index))
    weight[:5], weight[hips] = _FACE, _HIPS
    from_hips = world[:, index] - world[:, index][:, hips].mean(1, keepdims=True)
    height = float(np.median(np.ptp(landmarks[..., 1], axis=1)))
    points, confidence = as_tensor(landmarks[:, index, :2]), as_tensor(landmarks[:, index, 2])
    return _Targets(points, as_tensor(from_hips), confidence, weight, hips, height / 40, focal_px, as_tensor(np.array(center_px)))
