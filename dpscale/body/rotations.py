"""Rotations as matrices and rotation vectors (axis times angle, radians)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def from_quaternion(q: Float[np.ndarray, "*b 4"]) -> Float[np.ndarray, "*b 3 3"]:
    """Matrices of quaternions w, x, y, z, of any length but zero."""
    w, x, y, z = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]  # fmt: skip
    return np.stack(rows, -1).reshape((*q.shape[:-1], 3, 3))


def from_vector(v: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3 3"]:
    """Matrices of rotation vectors (Rodrigues)."""
    angle = np.linalg.norm(v, axis=-1, keepdims=True)
    x, y, z = np.moveaxis(v / (angle + 1e-12), -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape((*v.shape[:-1], 3, 3))
    angle = angle[..., None]
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def to_vector(matrix: Float[np.ndarray, "*b 3 3"]) -> Float[np.ndarray, "*b 3"]:
    """Rotation vectors of matrices; angles below pi."""
    angle = np.arccos(np.clip((np.trace(matrix, axis1=-2, axis2=-1) - 1) / 2, -1, 1))
    axis = np.stack([matrix[..., 2, 1] - matrix[..., 1, 2], matrix[..., 0, 2] - matrix[..., 2, 0], matrix[..., 1, 0] - matrix[..., 0, 1]], -1)
    return axis / (np.linalg.norm(axis, axis=-1, keepdims=True) + 1e-12) * angle[..., None]


def about_z(angle: Float[np.ndarray, "*b"] | float) -> Float[np.ndarray, "*b 3 3"]:
    """Rotation by `angle` about the z axis."""
    angle = np.asarray(angle, float)
    return from_vector(np.stack([np.zeros_like(angle), np.zeros_like(angle), angle], -1))


def fraction(matrix: Float[np.ndarray, "*b 3 3"], part: float) -> Float[np.ndarray, "*b 3 3"]:
    """The rotation about the same axis by `part` of the angle."""
    return from_vector(to_vector(matrix) * part)


def between(a: Float[np.ndarray, " 3"], b: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "3 3"]:
    """The smallest rotation that turns direction `a` into direction `b`."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    axis = np.cross(a, b)
    sine = np.linalg.norm(axis)
    return np.eye(3) if sine < 1e-9 else from_vector(axis / sine * np.arctan2(sine, a @ b))
