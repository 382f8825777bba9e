"""A person of whom only 2D keypoints are known, as a track that a body can be fitted to: depth comes from the fit's priors alone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from dpscale.data.types import InputError
from dpscale.preprocess.blazepose import NUM_LANDMARKS
from dpscale.preprocess.keypoints import PersonTrack
from dpscale.preprocess.smoothing import filled

_KEYPOINT_OF_LANDMARK = (0, 15, 15, 15, 14, 14, 14, 17, 16, 0, 0, 5, 2, 6, 3, 7, 4, 7, 4, 7, 4, 7, 4, 11, 8, 12, 9, 13, 10, 13, 10, 13, 10)
"""OpenPose-18 keypoint that stands in for each of BlazePose's landmarks: mouth, fingers and feet have none of their own."""
_OWN = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
"""Landmarks that are keypoints themselves: only they count in the fit."""
_TORSO_M = 0.5
"""From the middle of the shoulders to that of the hips."""
_MIN_CONFIDENCE = 0.2


def lifted(source: str, keypoints: Float[np.ndarray, "N 18 3"]) -> PersonTrack:
    """A track without silhouettes. In space the body is flat, as seen; that says which side faces the camera and how large it is.

    Raises InputError, naming `source`, where shoulders or hips are never seen."""
    confidence = keypoints[..., 2]
    torso = [2, 5, 8, 11]
    if (confidence[:, torso] < _MIN_CONFIDENCE).all(0).any():
        raise InputError(f"{source}: shoulders or hips are never seen: give a drawing of the whole body")
    places = filled(keypoints[..., :2].astype(float), confidence.astype(float), _MIN_CONFIDENCE)
    never = (confidence < _MIN_CONFIDENCE).all(0)
    places[:, never] = places[:, torso].mean(1, keepdims=True)
    landmarks = np.zeros((len(keypoints), NUM_LANDMARKS, 3))
    landmarks[..., :2] = places[:, list(_KEYPOINT_OF_LANDMARK)]
    landmarks[:, list(_OWN), 2] = np.where(never, 0, np.maximum(confidence, 0.05))[:, [_KEYPOINT_OF_LANDMARK[k] for k in _OWN]]
    middle = places[:, [8, 11]].mean(1)
    length = np.median(np.linalg.norm(places[:, [2, 5]].mean(1) - middle, axis=1))
    world = np.zeros((len(keypoints), NUM_LANDMARKS, 3))
    world[..., :2] = (landmarks[..., :2] - middle[:, None]) * (_TORSO_M / max(length, 1e-6))
    found = (confidence[:, torso] >= _MIN_CONFIDENCE).any(1)
    return PersonTrack(landmarks, world, found, (None,) * len(keypoints), 1.0)
