"""Which images a frame is made of, from the driving pose alone: what part each canonical image has in it, and where the body may be.

Nothing here is learnt, so a restored field gets it from its inputs again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from dpscale.config.field import BackgroundConfig, CanonicalsConfig, FieldConfig
from dpscale.data.types import Pose, keypoint_distance

_CANDIDATES = 256
"""Most frames that key poses are chosen from, evenly over the video: memory grows with their square."""


@dataclass(frozen=True)
class Layers:
    """How the N frames of a video divide into the field's images."""

    weights: Float[np.ndarray, "N K"]
    """Part that each canonical image has in a frame; rows sum to 1, zeros are never evaluated."""
    body: UInt8[np.ndarray, "N H W"] | None
    """How much of a pixel the body may cover, 0..255; None: there is no background layer, and the body's images show everything."""

    @classmethod
    def of(cls, config: FieldConfig, pose: Pose) -> Layers:
        """The layers that the settings ask for, in the driving pose."""
        size = pose.iuv.shape[1:3]
        body = soft_body(pose.iuv, config.background) if config.background.layer else None
        return cls(canonical_weights(pose.keypoints, size, config.canonicals), body)


def canonical_weights(keypoints: Float[np.ndarray, "N 18 3"], size: tuple[int, int], config: CanonicalsConfig) -> Float[np.ndarray, "N K"]:
    """w_nk = exp(-d_nk / (s d)) / sum_j exp(-d_nj / (s d)): d_nk is the distance of frame n's pose from key pose k, d the mean distance
    between two key poses, s the softness. Weights below the cutoff, as part of the largest in their frame, become 0 and the rest is
    normalised again."""
    poses, count = posture(keypoints), config.count
    if count == 1:
        return np.ones((len(poses), 1))
    keys = poses[key_poses(poses, count, size)]
    apart = keypoint_distance(keys, keys, size).sum() / (count * (count - 1))
    distance = keypoint_distance(keys, poses, size)
    # Relative to the nearest key, so that the largest weight of a frame is 1 before normalising; all poses alike: all weights alike.
    weights = np.exp(-(distance - distance.min(1, keepdims=True)) / max(config.softness * apart, 1e-12))
    weights = np.where(weights < config.cutoff, 0.0, weights)
    return weights / weights.sum(1, keepdims=True)


def posture(keypoints: Float[np.ndarray, "N 18 3"]) -> Float[np.ndarray, "N 18 3"]:
    """Keypoints about their centre, weighted by confidence: a body that moves across the picture unchanged needs no other canonical image."""
    weight = keypoints[..., 2:].astype(np.float64) + 1e-6
    centre = (keypoints[..., :2] * weight).sum(1, keepdims=True) / weight.sum(1, keepdims=True)
    return np.concatenate([keypoints[..., :2] - centre, keypoints[..., 2:]], -1)


def key_poses(poses: Float[np.ndarray, "N 18 3"], count: int, size: tuple[int, int]) -> Int[np.ndarray, " K"]:
    """Frames of `count` key poses, in the order of time: k-medoids by Voronoi iteration, which starts at the frame that is nearest to
    all others and then, one after the other, those farthest from the keys so far. Ties go to the earlier frame: no random numbers."""
    frames = np.unique(np.linspace(0, len(poses) - 1, min(len(poses), _CANDIDATES)).round().astype(int))
    distance = keypoint_distance(poses[frames], poses[frames], size)
    keys = [int(distance.sum(1).argmin())]
    while len(keys) < count:
        keys.append(int(distance[:, keys].min(1).argmax()))
    while (better := _medoids(distance, keys)) != keys:
        keys = better
    return frames[sorted(keys)]


def _medoids(distance: Float[np.ndarray, "M M"], keys: list[int]) -> list[int]:
    """The frame nearest to all others of each key's cluster. A key stays unless another is nearer, so the total only falls."""
    nearest, better = distance[:, keys].argmin(1), []
    for k, key in enumerate(keys):
        members = np.flatnonzero(nearest == k)
        total = distance[members].sum(0) if len(members) else np.zeros(0)
        best = int(members[total[members].argmin()]) if len(members) else key
        better.append(best if len(members) and total[best] < total[key] else key)
    return better


def soft_body(iuv: UInt8[np.ndarray, "N H W 3"], config: BackgroundConfig) -> UInt8[np.ndarray, "N H W"]:
    """clip((margin + edge - d) / edge, 0, 1) as 0..255, with d the distance to the nearest pixel of the driving body: whole up to the margin,
    then falling to nothing over the edge. `iuv` may be mapped from disk: one frame at a time is read."""
    soft = np.empty(iuv.shape[:3], np.uint8)
    for n, frame in enumerate(iuv):
        soft[n] = _soft(frame[..., 0] > 0, config)
    return soft


def _soft(body: Bool[np.ndarray, "H W"], config: BackgroundConfig) -> UInt8[np.ndarray, "H W"]:
    soft = np.zeros(body.shape, np.uint8)
    if not body.any():
        return soft
    margin, edge = config.margin * len(body), config.edge * len(body)
    reach = int(np.ceil(margin + edge))
    rows, columns = np.flatnonzero(body.any(1)), np.flatnonzero(body.any(0))
    near = np.s_[max(0, rows[0] - reach) : rows[-1] + reach + 1, max(0, columns[0] - reach) : columns[-1] + reach + 1]
    from scipy.ndimage import distance_transform_edt  # only a background needs it; a field alone runs on torch, numpy and pydantic

    distance = distance_transform_edt(~body[near])
    soft[near] = np.rint(255 * np.clip((margin + edge - distance) / edge, 0, 1))
    return soft
