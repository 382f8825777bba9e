"""A preprocessed clip as a contact sheet: the frames, the pose over them, and the human flow."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import UInt8
from torchvision.utils import flow_to_image

from dpscale.data.types import Clip
from dpscale.evaluate.video_files import contact_sheet, pose_pictures


def shard_sheet(clip: Clip, columns: int = 8) -> UInt8[np.ndarray, "A B 3"]:
    """Rows: frames (where the clip has them), skeleton and parts over the frames, flow n -> n+1 (colour: direction, depth of colour:
    speed, over the frames where it holds)."""
    body = clip.pose.iuv[..., :1] > 0
    below = np.full_like(clip.pose.iuv, 235) if clip.frames is None else clip.frames
    drawn = pose_pictures(clip.pose)
    rows = {} if clip.frames is None else {"frames": clip.frames}
    rows["pose"] = np.where(drawn.any(-1, keepdims=True), _mixed(drawn, below, 0.7), below)
    moving = torch.from_numpy(np.ascontiguousarray(clip.pose.flow.transpose(0, 3, 1, 2))).float()
    colours = np.stack([flow_to_image(flow).permute(1, 2, 0).numpy() for flow in moving])
    rows["human flow"] = np.where(clip.pose.flow_valid[..., None] & body, _mixed(colours, below, 0.8), below)
    return contact_sheet(rows, columns)


def _mixed(over: UInt8[np.ndarray, "N H W 3"], below: UInt8[np.ndarray, "N H W 3"], share: float) -> UInt8[np.ndarray, "N H W 3"]:
    return np.rint(share * over + (1 - share) * below).astype(np.uint8)
