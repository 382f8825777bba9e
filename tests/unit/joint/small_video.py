"""The smallest video to make: five frames of random pose and flow, and a refresh that needs no diffusion model."""

from __future__ import annotations

import json

import numpy as np

from dpscale.config.schema import Config, JointConfig, SchedulerConfig
from dpscale.data.types import BodyMotion, BodyShape, Pose
from dpscale.diffusion.reference import KnownFrames
from dpscale.joint.state import JointState, RefreshRequest
from dpscale.joint.video import VideoTask
from tests.unit.field.small_field import SMALL

NUM_FRAMES, SIZE = 5, 8


def small_config(**joint: object) -> Config:
    """Three warm-up steps, then ten steps with a refresh after every four, and so after the last."""
    settings = {"steps": 10, "refresh_interval": 4, "warm_up_steps": 3} | joint
    return Config(field=SMALL, joint=JointConfig(**settings), scheduler=SchedulerConfig(slice_steps=3))


def small_pose(seed: int = 0) -> Pose:
    rng = np.random.default_rng(seed)
    motion = BodyMotion(np.zeros((NUM_FRAMES, 1, 3, 3), np.float32), np.zeros((NUM_FRAMES, 3), np.float32), 10.0, (0.0, 0.0))
    return Pose(
        keypoints=np.zeros((NUM_FRAMES, 18, 3), np.float32),
        iuv=rng.integers(0, 3, (NUM_FRAMES, SIZE, SIZE, 3), dtype=np.uint8),
        flow=rng.normal(0, 0.05, (NUM_FRAMES, SIZE, SIZE, 2)).astype(np.float32),
        flow_valid=rng.random((NUM_FRAMES, SIZE, SIZE)) < 0.3,
        shape=BodyShape(np.zeros(1), np.zeros(1)),
        motion=motion,
    )


def small_video(config: Config | None = None, name: str = "someone--self") -> VideoTask:
    reference = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    known = KnownFrames(reference[None], np.zeros((1, SIZE, SIZE, 3), np.uint8), np.zeros((1, 18, 3), np.float32))
    return VideoTask(name, config or small_config(), small_pose(), reference, np.zeros(4, np.float32), known)


def inverting_refresh(request: RefreshRequest) -> np.ndarray:
    """Targets that depend on V_s and on the number of the refresh."""
    return 255 - np.roll(request.guidance, request.refresh, axis=0)


def bits(state: JointState) -> dict[str, bytes]:
    """Everything in a state that must repeat."""
    arrays = {name: parameter.detach().numpy() for name, parameter in state.field.named_parameters()}
    for name, parameter in state.field.named_parameters():
        arrays |= {f"{key}.{name}": value.numpy() for key, value in state.optimizer.state.get(parameter, {}).items()}
    if state.targets is not None:
        arrays["targets"] = state.targets.numpy()
    request = {} if state.request is None else {**vars(state.request), "guidance": state.request.guidance.tolist()}
    history = [state.history.losses, state.history.stopped_at]
    counters = json.dumps([state.step, state.optimizer_steps, state.num_refreshes, history, request], sort_keys=True)
    return {name: array.tobytes() for name, array in arrays.items()} | {"counters": counters.encode()}
