"""Tiny clips with a person that is a moving square."""

from __future__ import annotations

import numpy as np

from dpscale.data.types import BodyMotion, BodyShape, Clip, Pose

SIZE = 32


def moving_pose(num_frames: int, step_px: float = 1.0) -> Pose:
    """A square of 8 px that moves right by `step_px` a frame; its keypoints are its centre."""
    keypoints, iuv = np.zeros((num_frames, 18, 3), np.float32), np.zeros((num_frames, SIZE, SIZE, 3), np.uint8)
    flow, valid = np.zeros((num_frames, SIZE, SIZE, 2), np.float32), np.zeros((num_frames, SIZE, SIZE), bool)
    for n in range(num_frames):
        left = int(4 + n * step_px)
        keypoints[n] = (left + 4, 12 + 4, 1)
        iuv[n, 12:20, left : left + 8] = (1, 128, 128)
        if n < num_frames - 1:
            flow[n, 12:20, left : left + 8, 0] = step_px / SIZE
            valid[n, 12:20, left : left + 8] = True
    motion = BodyMotion(np.tile(np.eye(3, dtype=np.float32), (num_frames, 4, 1, 1)), np.zeros((num_frames, 3), np.float32), 50.0, (0.0, 0.0))
    return Pose(keypoints, iuv, flow, valid, BodyShape(np.zeros(8, np.float32), np.zeros(9, np.float32)), motion)


def frames_of(pose: Pose, seed: int = 0) -> np.ndarray:
    """A white square on a noisy still background."""
    background = np.random.default_rng(seed).integers(0, 128, (SIZE, SIZE, 3), dtype=np.uint8)
    return np.where(pose.iuv[..., :1] > 0, np.uint8(255), background[None])


def main_clip(num_frames: int = 15, num_train: int = 12) -> Clip:
    pose = moving_pose(num_frames)
    latents, embedding = np.zeros((num_frames, 4, 4, 4), np.float32), np.zeros(8, np.float32)
    return Clip("ann", "main", 10.0, num_train, pose, frames_of(pose), latents, embedding, provenance={"source": "test"})


def driving_clip(num_frames: int = 5) -> Clip:
    return Clip("ann", "dance", 12.0, num_frames, moving_pose(num_frames, 2.0))
