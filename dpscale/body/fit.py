"""Fits the embedded body to one person in one uncalibrated video: lengths and widths of the body, movement, place.

First to landmarks; then, where the person's outline is known, the body's rim to it as well. A wide prior (focal length 1.2 times the
longer side of the picture) stands in for the calibration. Camera axes: x right, y down, z forward, metres; the same axes as
BlazePose's world landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dpscale.body.first_guess import first_root, torso_frame
from dpscale.body.outline import Outlines, Rim, find_rim, fit_girths
from dpscale.body.parametric import SCALE_SEGMENTS, BodyModel, load_body
from dpscale.body.rest_surface import NUM_GIRTHS
from dpscale.data.types import BodyMotion, BodyShape

FOCAL_PRIOR = 1.2
"""Focal length over the longer side of the picture: a phone's main camera."""

LANDMARK_OF_KEYPOINT = {
    "nose": 0, "left_eye": 2, "right_eye": 5, "left_ear": 7, "right_ear": 8, "left_shoulder": 11, "right_shoulder": 12,
    "left_elbow": 13, "right_elbow": 14, "left_wrist": 15, "right_wrist": 16, "left_hip": 23, "right_hip": 24, "left_knee": 25,
    "right_knee": 26, "left_ankle": 27, "right_ankle": 28, "left_heel": 29, "right_heel": 30, "left_big_toe": 31, "right_big_toe": 32,
}  # fmt: skip
"""The embedded body's keypoints that BlazePose sees as well, with the index of its landmark."""
_FACE, _HIPS = 0.3, 0.5
"""Weights of landmarks whose place on the body BlazePose and the embedded body see differently."""

_STIFFNESS = {"root": 0.0, "spine": 0.5, "neck": 0.5, "head": 0.3, "clavicle": 0.6, "shoulder01": 0.6, "upperarm": 0.01, "lowerarm": 0.02,
              "wrist": 1.0, "upperleg": 0.01, "lowerleg": 0.02, "foot": 0.2}  # fmt: skip
"""How strongly each movable bone prefers its rest angle."""

_PX_WEIGHT, _WORLD_WEIGHT, _REST_WEIGHT, _ANGLE_SMOOTH, _PATH_SMOOTH, _LENGTH_PRIOR, _SIZE_PRIOR = 4.0, 0.5, 0.2, 60.0, 400.0, 1.0, 3.0
_WORLD_SIGMA_M, _ROBUST_PX, _LR_END = 0.15, 3.0, 0.09
_OUTLINE_WEIGHT, _OUTLINE_ROUNDS, _OUTLINE_STEPS = 8.0, 3, 0.3
"""Weight of the rim's misses, rounds of looking for the outline and moving towards it, and steps of a round over those of the first fit."""


@dataclass(frozen=True)
class _Skeleton:
    """The bones that move, and each keypoint as a sum over them: position = sum_m weight[k, m] * joint[m] + rotation[m] @ arm[k, m]."""

    bones: tuple[int, ...]
    parents: tuple[int, ...]
    """Index into `bones`, -1 for the root."""
    offset: Float[Tensor, "M 3"]
    """Rest position relative to the parent's."""
    segment: Int[Tensor, " M"]
    weight: Float[Tensor, "K M"]
    arm: Float[Tensor, "K M 3"]
    stiffness: Float[Tensor, " M"]

    def pose(self, root_frame: Tensor, angles: Float[Tensor, "N M 3"], root: Float[Tensor, "N 3"], scales: Float[Tensor, " M"]):
        """Global rotations [N, M, 3, 3] and joints [N, M, 3]."""
        local, rotations, joints = _rotation_matrices(angles), [], []
        for m, parent in enumerate(self.parents):
            before = root_frame if parent < 0 else rotations[parent]
            joints.append(root if parent < 0 else joints[parent] + scales[parent] * (before @ self.offset[m]))
            rotations.append(before @ local[:, m])
        return torch.stack(rotations, 1), torch.stack(joints, 1)

    def keypoints(self, rotations: Tensor, joints: Tensor, scales: Tensor) -> Float[Tensor, "N K 3"]:
        return torch.einsum("nmij,kmj->nki", rotations, self.arm * scales[None, :, None]) + torch.einsum("km,nmi->nki", self.weight, joints)


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
    skeleton, targets = _skeleton(body), _targets(landmarks, world, focal_px, center_px)
    root_frame = _torch(torso_frame(world))
    unknowns = _Unknowns(
        torch.zeros(len(landmarks), len(skeleton.bones), 3, requires_grad=True),
        _torch(first_root(landmarks, world, focal_px, center_px)).requires_grad_(),
        torch.zeros(len(SCALE_SEGMENTS), requires_grad=True),
    )
    _optimise(skeleton, targets, root_frame, unknowns, steps, 1.0)
    girths = np.zeros(NUM_GIRTHS if outlines else 0)
    for _ in range(_OUTLINE_ROUNDS if outlines else 0):
        shape, motion = _result(body, skeleton, root_frame, unknowns, girths, focal_px, center_px)
        rim = find_rim(body, body.shaped(shape), motion, outlines, range(len(landmarks)))
        girths = fit_girths(body, _first_frames(rim, outlines.num_train), float(np.exp(shape.log_scales[-1])), girths)
        surface = body.shaped(BodyShape(shape.betas, shape.log_scales, girths)).vertices
        _optimise(skeleton, targets, root_frame, unknowns, max(1, round(steps * _OUTLINE_STEPS)), 0.3, _contour(body, skeleton, surface, rim))
    return _result(body, skeleton, root_frame, unknowns, girths, focal_px, center_px)


def _optimise(
    skeleton: _Skeleton, targets: _Targets, root_frame: Tensor, unknowns: _Unknowns, steps: int, pace: float, contour: _Contour | None = None
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
    body: BodyModel, skeleton: _Skeleton, root_frame: Tensor, unknowns: _Unknowns, girths: np.ndarray, focal_px: float, center_px: tuple[float, float]
) -> tuple[BodyShape, BodyMotion]:
    rotations, _ = skeleton.pose(root_frame, unknowns.angles, unknowns.root, _scales(skeleton, unknowns.log_scales))
    every = rotations.numpy()[:, _nearest_moving(body, skeleton.bones)]
    shape = BodyShape(np.zeros(body.num_betas), unknowns.log_scales.detach().numpy().astype(float), girths)
    return shape, BodyMotion(every, unknowns.root.detach().numpy().copy(), float(focal_px), (float(center_px[0]), float(center_px[1])))


@dataclass(frozen=True)
class _Contour:
    """Rim vertices as sums over the few bones that move each (else as _Skeleton's keypoints), and the lines on which they should fall."""

    frame: Int[Tensor, " R"]
    bone: Int[Tensor, "R W"]
    weight: Float[Tensor, "R W"]
    arm: Float[Tensor, "R W 3"]
    target: Float[Tensor, "R 2"]
    normal: Float[Tensor, "R 2"]

    def miss(self, rotations: Float[Tensor, "N M 3 3"], joints: Float[Tensor, "N M 3"], scales: Tensor, targets: _Targets) -> Float[Tensor, " R"]:
        """Distance to the lines in the unit of the landmarks' misses."""
        frame = self.frame[:, None]
        turned = torch.einsum("rwij,rwj->ri", rotations[frame, self.bone], self.arm * scales[self.bone][..., None])
        points = turned + torch.einsum("rw,rwi->ri", self.weight, joints[frame, self.bone])
        off = targets.seen(points) - self.target
        return (off * self.normal).sum(-1) / targets.unit_px


def _contour(body: BodyModel, skeleton: _Skeleton, surface: Float[np.ndarray, "V 3"], rim: Rim) -> _Contour:
    skin = _skin(body, skeleton.bones)
    most = int((skin > 0).sum(1).max())
    bone = np.argsort(-skin, axis=1, kind="stable")[:, :most]
    weight = np.take_along_axis(skin, bone, 1)
    arm = weight[..., None] * (surface[:, None] - body.heads[list(skeleton.bones)][bone])
    bones, weights, arms = bone[rim.vertex], weight[rim.vertex], arm[rim.vertex]
    return _Contour(torch.from_numpy(rim.frame), torch.from_numpy(bones), _torch(weights), _torch(arms), _torch(rim.target), _torch(rim.normal))


def _first_frames(rim: Rim, num_frames: int) -> Rim:
    own = rim.frame < num_frames
    return Rim(rim.frame[own], rim.vertex[own], rim.target[own], rim.normal[own], rim.gap_m[own])


def _loss(skeleton: _Skeleton, targets: _Targets, root_frame: Tensor, unknowns: _Unknowns, contour: _Contour | None) -> Tensor:
    angles, root, log_scales = unknowns.angles, unknowns.root, unknowns.log_scales
    scales = _scales(skeleton, log_scales)
    rotations, joints = skeleton.pose(root_frame, angles, root, scales)
    points = skeleton.keypoints(rotations, joints, scales)
    robust = _robust((targets.seen(points) - targets.points_px).norm(dim=-1) / targets.unit_px)
    outline = 0.0 if contour is None else _OUTLINE_WEIGHT * _robust(contour.miss(rotations, joints, scales, targets)).mean()
    from_hips = points - points[:, targets.hips].mean(1, keepdim=True)
    off_world = (from_hips - targets.world).square().sum(-1) / _WORLD_SIGMA_M**2
    return (
        _PX_WEIGHT * (targets.confidence.square() * targets.weight * robust).mean()
        + _WORLD_WEIGHT * (targets.confidence * targets.weight * off_world).mean()
        + _REST_WEIGHT * (skeleton.stiffness[:, None] * angles.square()).sum(-1).mean()
        + _ANGLE_SMOOTH * (_acceleration(angles[:, 1:]) + _acceleration(rotations[:, 0]) / 2)
        + _PATH_SMOOTH * _acceleration(root)
        + _LENGTH_PRIOR * log_scales[:-1].square().sum()
        + _SIZE_PRIOR * log_scales[-1].square()
        + outline
    )


def _robust(miss: Tensor) -> Tensor:
    """Geman and McClure's: far misses stop pulling."""
    return miss.square() / (1 + (miss / _ROBUST_PX).square())


def _acceleration(x: Float[Tensor, "N *d 3"]) -> Tensor:
    if len(x) < 3:
        return x.new_zeros(())
    return (x[2:] - 2 * x[1:-1] + x[:-2]).square().sum(-1).mean()


def _scales(skeleton: _Skeleton, log_scales: Tensor) -> Float[Tensor, " M"]:
    return torch.exp(log_scales[skeleton.segment] + log_scales[-1])


def _rotation_matrices(v: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rodrigues, differentiable at zero."""
    angle = (v.square().sum(-1, keepdim=True) + 1e-12).sqrt()
    x, y, z = (v / angle).unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*v.shape[:-1], 3, 3)
    angle = angle[..., None]
    return torch.eye(3) + torch.sin(angle) * cross + (1 - torch.cos(angle)) * (cross @ cross)


def _stiffness_of(bone: str) -> float | None:
    """None for a bone that only follows its parent."""
    follows = bone.startswith(("upperarm02", "lowerarm02", "upperleg02", "lowerleg02"))
    return None if follows else next((s for prefix, s in _STIFFNESS.items() if bone.startswith(prefix)), None)


def _nearest_moving(body: BodyModel, bones: tuple[int, ...]) -> list[int]:
    """For each bone, the index into `bones` of itself or of its nearest moving ancestor, which carries it rigidly."""
    nearest: list[int] = []
    for bone, parent in enumerate(body.parents):
        nearest.append(bones.index(bone) if bone in bones else nearest[parent])
    return nearest


def _skin(body: BodyModel, bones: tuple[int, ...]) -> Float[np.ndarray, "V M"]:
    """Skinning weights on the bones that move."""
    skin = np.zeros((len(body.vertices), len(bones)))
    np.add.at(skin, (np.arange(len(skin))[:, None], np.array(_nearest_moving(body, bones))[body.skin_bones]), body.skin_weights)
    return skin


def _skeleton(body: BodyModel) -> _Skeleton:
    stiffness = [_stiffness_of(name) for name in body.bone_names]
    bones = tuple(b for b, s in enumerate(stiffness) if s is not None)
    nearest = _nearest_moving(body, bones)
    parents = tuple(nearest[body.parents[b]] if body.parents[b] >= 0 else -1 for b in bones)
    offset = np.array([body.heads[b] - (body.heads[bones[p]] if p >= 0 else 0) for b, p in zip(bones, parents, strict=True)])
    regressor = body.keypoint_regressor[[body.keypoint_names.index(name) for name in LANDMARK_OF_KEYPOINT]]
    skin = _skin(body, bones)
    weight = regressor @ skin
    arm = np.stack([(regressor * skin[:, m]) @ (body.vertices - body.heads[b]) for m, b in enumerate(bones)], 1)
    return _Skeleton(
        bones, parents, _torch(offset), torch.as_tensor(body.bone_scale_segment[list(bones)]), _torch(weight), _torch(arm),
        torch.tensor([stiffness[b] for b in bones]),
    )  # fmt: skip


def _targets(landmarks: np.ndarray, world: np.ndarray, focal_px: float, center_px: tuple[float, float]) -> _Targets:
    index, names = list(LANDMARK_OF_KEYPOINT.values()), list(LANDMARK_OF_KEYPOINT)
    hips = [names.index("left_hip"), names.index("right_hip")]
    weight = torch.ones(len(index))
    weight[:5], weight[hips] = _FACE, _HIPS
    from_hips = world[:, index] - world[:, index][:, hips].mean(1, keepdims=True)
    height = float(np.median(np.ptp(landmarks[..., 1], axis=1)))
    points, confidence = _torch(landmarks[:, index, :2]), _torch(landmarks[:, index, 2])
    return _Targets(points, _torch(from_hips), confidence, weight, hips, height / 40, focal_px, _torch(np.array(center_px)))


def _torch(array: np.ndarray) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float32)
