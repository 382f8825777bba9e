"""The body's rest surface: its normals, and what clothes, hair and build add along them.

Landmarks tell how long a body is, not how wide. Girths do: one width in metres for each of a few soft regions, the same on both
sides of the body, added along the normals of the bare surface. Topology and charts stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from dpscale.body.bake import SEGMENTS

if TYPE_CHECKING:
    from dpscale.body.parametric import BodyModel

_TORSO_LEVELS, _HEAD_LEVELS, _LIMB_LEVELS = 4, 3, 2
_LIMBS = (
    ("uleg", "upperleg01", "lowerleg01"), ("lleg", "lowerleg01", "foot"), ("uarm", "upperarm01", "lowerarm01"), ("larm", "lowerarm01", "wrist"),
)  # fmt: skip
"""Segment, and the joints between which it lies."""

NUM_GIRTHS = 2 * _TORSO_LEVELS + _LIMB_LEVELS * len(_LIMBS) + 2 + _HEAD_LEVELS


def vertex_normals(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> Float[np.ndarray, "V 3"]:
    """Area-weighted unit normals."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    total = np.stack([sum(np.bincount(faces[:, k], normal[:, axis], len(vertices)) for k in range(3)) for axis in range(3)], 1)
    return total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-12)


def girth_basis(body: BodyModel) -> Float[np.ndarray, "V G"]:
    """How much of each girth a vertex takes: front and back of the torso at four heights, two ends of each limb, feet, hands, and the
    head at three heights."""
    front = (1 - vertex_normals(body.vertices, body.faces)[:, 1]) / 2
    hips, neck = (body.heads[body.bone_index[name]][2] for name in ("upperleg01.L", "neck01"))
    torso = _levels((body.vertices[:, 2] - hips) / (neck - hips), _TORSO_LEVELS) * _segment(body, "torso")
    head, height = _segment(body, "head"), body.vertices[:, 2:]
    on_head = head[:, 0] > 0.5
    skull = (height - height[on_head].min()) / np.ptp(height[on_head])
    limbs = [_levels(_along(body, *limb), _LIMB_LEVELS) * _segment(body, limb[0] + "L", limb[0] + "R") for limb in _LIMBS]
    ends = [_segment(body, name + "L", name + "R") for name in ("foot", "hand")]
    return np.concatenate([torso * front[:, None], torso * (1 - front[:, None]), *limbs, *ends, _levels(skull[:, 0], _HEAD_LEVELS) * head], 1)


def _segment(body: BodyModel, *names: str) -> Float[np.ndarray, "V 1"]:
    return body.vertex_segment[:, [SEGMENTS.index(name) for name in names]].sum(1, keepdims=True)


def _along(body: BodyModel, segment: str, start: str, end: str) -> Float[np.ndarray, " V"]:
    """0 at the joint where a limb begins, 1 where it ends, on both sides of the body."""
    along = np.zeros(len(body.vertices))
    for side in "LR":
        a, b = (body.heads[body.bone_index[f"{joint}.{side}"]] for joint in (start, end))
        own = _segment(body, segment + side)[:, 0] > 0
        along[own] = (body.vertices[own] - a) @ (b - a) / ((b - a) @ (b - a))
    return along


def _levels(place: Float[np.ndarray, " V"], count: int) -> Float[np.ndarray, "V L"]:
    """Piecewise linear weights of `count` evenly spaced levels between 0 and 1."""
    distance = np.abs(place.clip(0, 1)[:, None] * (count - 1) - np.arange(count))
    return np.clip(1 - distance, 0, 1)
