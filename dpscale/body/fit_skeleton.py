"""The bones that the body fit moves: their kinematics, and keypoints and vertices as sums over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dpscale.body.parametric import BodyModel

LANDMARK_OF_KEYPOINT = {
    "nose": 0, "left_eye": 2, "right_eye": 5, "left_ear": 7, "right_ear": 8, "left_shoulder": 11, "right_shoulder": 12,
    "left_elbow": 13, "right_elbow": 14, "left_wrist": 15, "right_wrist": 16, "left_hip": 23, "right_hip": 24, "left_knee": 25,
    "right_knee": 26, "left_ankle": 27, "right_ankle": 28, "left_heel": 29, "right_heel": 30, "left_big_toe": 31, "right_big_toe": 32,
}  # fmt: skip
"""The embedded body's keypoints that BlazePose sees as well, with the index of its landmark."""

_STIFFNESS = {"root": 0.0, "spine": 0.5, "neck": 0.5, "head": 0.3, "clavicle": 0.6, "shoulder01": 0.6, "upperarm": 0.01, "lowerarm": 0.02,
              "wrist": 1.0, "upperleg": 0.01, "lowerleg": 0.02, "foot": 0.2}  # fmt: skip
"""How strongly each movable bone prefers its rest angle."""


@dataclass(frozen=True)
class FitSkeleton:
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
        local, rotations, joints = rotation_matrices(angles), [], []
        for m, parent in enumerate(self.parents):
            before = root_frame if parent < 0 else rotations[parent]
            joints.append(root if parent < 0 else joints[parent] + scales[parent] * (before @ self.offset[m]))
            rotations.append(before @ local[:, m])
        return torch.stack(rotations, 1), torch.stack(joints, 1)

    def keypoints(self, rotations: Tensor, joints: Tensor, scales: Tensor) -> Float[Tensor, "N K 3"]:
        return torch.einsum("nmij,kmj->nki", rotations, self.arm * scales[None, :, None]) + torch.einsum("km,nmi->nki", self.weight, joints)


def fit_skeleton(body: BodyModel) -> FitSkeleton:
    stiffness = [_stiffness_of(name) for name in body.bone_names]
    bones = tuple(b for b, s in enumerate(stiffness) if s is not None)
    nearest = nearest_moving(body, bones)
    parents = tuple(nearest[body.parents[b]] if body.parents[b] >= 0 else -1 for b in bones)
    offset = np.array([body.heads[b] - (body.heads[bones[p]] if p >= 0 else 0) for b, p in zip(bones, parents, strict=True)])
    regressor = body.keypoint_regressor[[body.keypoint_names.index(name) for name in LANDMARK_OF_KEYPOINT]]
    skin = moving_skin(body, bones)
    weight = regressor @ skin
    arm = np.stack([(regressor * skin[:, m]) @ (body.vertices - body.heads[b]) for m, b in enumerate(bones)], 1)
    return FitSkeleton(
        bones, parents, as_tensor(offset), torch.as_tensor(body.bone_scale_segment[list(bones)]), as_tensor(weight), as_tensor(arm),
        torch.tensor([stiffness[b] for b in bones]),
    )  # fmt: skip


def rotation_matrices(v: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rodrigues, differentiable at zero."""
    angle = (v.square().sum(-1, keepdim=True) + 1e-12).sqrt()
    x, y, z = (v / angle).unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*v.shape[:-1], 3, 3)
    angle = angle[..., None]
    return torch.eye(3) + torch.sin(angle) * cross + (1 - torch.cos(angle)) * (cross @ cross)


def moving_skin(body: BodyModel, bones: tuple[int, ...]) -> Float[np.ndarray, "V M"]:
    """Skinning weights on the bones that move."""
    skin = np.zeros((len(body.vertices), len(bones)))
    np.add.at(skin, (np.arange(len(skin))[:, None], np.array(nearest_moving(body, bones))[body.skin_bones]), body.skin_weights)
    return skin


def nearest_moving(body: BodyModel, bones: tuple[int, ...]) -> list[int]:
    """For each bone, the index into `bones` of itself or of its nearest moving ancestor, which carries it rigidly."""
    nearest: list[int] = []
    for bone, parent in enumerate(body.parents):
        nearest.append(bones.index(bone) if bone in bones else nearest[parent])
    return nearest


def _stiffness_of(bone: str) -> float | None:
    """None for a bone that only follows its parent."""
    follows = bone.startswith(("upperarm02", "lowerarm02", "upperleg02", "lowerleg02"))
    return None if follows else next((s for prefix, s in _STIFFNESS.items() if bone.startswith(prefix)), None)


def as_tensor(array: np.ndarray) -> Tensor:
    """In fp32."""
    return torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float32)
