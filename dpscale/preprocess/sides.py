"""Keeps left and right apart in time.

One picture often shows the front or the back equally well: a covered face is enough. BlazePose then answers with the
mirror image: left and right exchanged, front and back of the torso exchanged. A body cannot turn around between two frames, so
the sequence of answers tells which of them are mirrored."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

_PAIRED = [(1, 4), (2, 5), (3, 6), (7, 8), (9, 10)] + [(left, left + 1) for left in range(11, 33, 2)]
_MIRROR = np.arange(33)
for _left, _right in _PAIRED:
    _MIRROR[[_left, _right]] = _right, _left
_MIRROR_COST = 0.01
"""Cost of a mirrored frame against 1 - cos of the angle that the torso turns between frames: a flip costs 2, a real spin little."""
_NARROW = 0.7


def mirrored(landmarks: Float[np.ndarray, "N 33 3"], world: Float[np.ndarray, "N 33 3"]) -> tuple[np.ndarray, np.ndarray]:
    """The other reading of the same picture: left and right exchanged, space reflected in the plane of the torso.

    Not in the picture's plane: BlazePose leans a body the same way in both readings."""
    up = world[:, [11, 12]].mean(1) - world[:, [23, 24]].mean(1)
    front = np.cross(_left_of_torso(world), up)
    front /= np.linalg.norm(front, axis=1, keepdims=True) + 1e-9
    reflected = world - 2 * (world @ front[..., None]) * front[:, None]
    return landmarks[:, _MIRROR], reflected[:, _MIRROR]


def mirrored_frames(world: Float[np.ndarray, "N 33 3"]) -> Bool[np.ndarray, " N"]:
    """Which frames to mirror so that the torso turns least (Viterbi over two states a frame).

    Directions are compared, not positions: between two flips BlazePose shrinks the shoulders to a point, and a body never does."""
    left = np.stack([_left_of_torso(world), _left_of_torso(mirrored(world, world)[1])])
    turned = 1 - np.einsum("anc,bnc->abn", left[:, 1:], left[:, :-1])
    price = np.array([0, _MIRROR_COST])
    cost, came_from = price, []
    for step in range(turned.shape[2]):
        reach = turned[:, :, step] + cost
        came_from.append(reach.argmin(1))
        cost = reach.min(1) + price
    states = [int(cost.argmin())]
    for origin in reversed(came_from):
        states.append(int(origin[states[-1]]))
    return np.array(states[::-1], bool)


def undecided_frames(world: Float[np.ndarray, "N 33 3"]) -> Bool[np.ndarray, " N"]:
    """Frames that show neither reading but their mean: the torso is much narrower in space than it mostly is."""
    width = np.linalg.norm(_across_torso(world), axis=1)
    return width < _NARROW * np.median(width)


def _across_torso(world: Float[np.ndarray, "N 33 3"]) -> Float[np.ndarray, "N 3"]:
    return world[:, 11] - world[:, 12] + world[:, 23] - world[:, 24]


def _left_of_torso(world: Float[np.ndarray, "N 33 3"]) -> Float[np.ndarray, "N 3"]:
    left = _across_torso(world)
    return left / (np.linalg.norm(left, axis=1, keepdims=True) + 1e-9)
