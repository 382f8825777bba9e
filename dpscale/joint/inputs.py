"""A video's arrays, decoded from its shards to files in its folder and mapped: memory does not grow with the number of frames.

    inputs/   <column>.npy of the driving pose, known_<column>.npy of the performer's training frames, flow_pixels.bin, flow_values.bin
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from dpscale.data.array_files import give_back, mapped, write_array
from dpscale.data.checkpoint import commit_folder, marker_of
from dpscale.data.shards import ShardReader
from dpscale.data.types import BodyMotion, Pose
from dpscale.diffusion.reference import KnownFrames
from dpscale.field.loss import HumanFlow

_POSE = ("keypoints", "iuv", "flow", "flow_valid", "rotations", "root")
_KNOWN = ("frames", "iuv", "keypoints", "mask")
_AT_ONCE = 16
"""Frames decoded together."""
_PIXELS, _VALUES = "flow_pixels.bin", "flow_values.bin"


class _AlreadyThere(Exception):
    """Another process was faster; what it wrote may be mapped by now, so it stays."""


def decode_inputs(
    folder: Path, key: str, drive: ShardReader, frames: Int[np.ndarray, " N"], main: ShardReader, num_known: int, background_flow: bool
) -> None:
    """Commits the pose in `frames` of `drive`, the first `num_known` frames of `main`, and the human flow's pixels, unless they are there.

    `key` names everything that they follow from."""
    marker = {"key": key}
    if marker_of(folder) == marker:
        return

    def write(path: Path) -> None:
        for name in _POSE:
            _decode(path / f"{name}.npy", drive, name, frames)
        for name in _KNOWN:
            if name in main.columns:
                _decode(path / f"known_{name}.npy", main, name, np.arange(num_known))
        flow, valid, iuv = (mapped(path / f"{name}.npy") for name in ("flow", "flow_valid", "iuv"))
        with (path / _PIXELS).open("wb") as pixels, (path / _VALUES).open("wb") as values:
            for part in human_flow_by_frame(flow, valid, iuv, background_flow):
                pixels.write(part.pixels.numpy())
                values.write(part.flow.numpy())
        if marker_of(folder) == marker:
            raise _AlreadyThere

    with suppress(_AlreadyThere):
        commit_folder(folder, write, marker)


def mapped_pose(folder: Path, drive: ShardReader) -> Pose:
    """The driving pose from the files in `folder`."""
    column = {name: mapped(folder / f"{name}.npy") for name in _POSE}
    focal_px, center_px = drive.camera
    motion = BodyMotion(column["rotations"], column["root"], focal_px, center_px)
    return Pose(column["keypoints"], column["iuv"], column["flow"], column["flow_valid"], drive.shape, motion)


def mapped_known(folder: Path) -> KnownFrames:
    """The performer's training frames from the files in `folder`."""
    column = {name: mapped(folder / f"known_{name}.npy") for name in _KNOWN if (folder / f"known_{name}.npy").exists()}
    return KnownFrames(column["frames"], column["iuv"], column["keypoints"], column.get("mask"))


def mapped_human_flow(folder: Path) -> HumanFlow:
    """HumanFlow.of the whole video, in files."""
    pixels = _raw(folder / _PIXELS, np.int64)
    return HumanFlow(torch.from_numpy(pixels), torch.from_numpy(_raw(folder / _VALUES, np.float32).reshape(len(pixels), 2)))


def human_flow_by_frame(
    flow: Float[np.ndarray, "N H W 2"], valid: Bool[np.ndarray, "N H W"], iuv: UInt8[np.ndarray, "N H W 3"], background: bool
) -> Iterator[HumanFlow]:
    """HumanFlow.of the whole video in pieces, one a frame: joined, they are the same."""
    area = valid.shape[1] * valid.shape[2]
    for frame in range(len(valid) - 1):
        pair = slice(frame, frame + 2)
        body = np.ascontiguousarray(iuv[pair, ..., 0]) > 0
        part = HumanFlow.of(torch.from_numpy(flow[pair]).float(), torch.from_numpy(valid[pair]), torch.from_numpy(body), background)
        yield HumanFlow(part.pixels + frame * area, part.flow)
        if frame % _AT_ONCE == 0:
            for array in (flow, valid, iuv):
                give_back(array)


def _decode(path: Path, shard: ShardReader, name: str, frames: Int[np.ndarray, " N"]) -> None:
    one = shard.column(name, frames[:1])
    pieces = (shard.column(name, frames[first : first + _AT_ONCE]) for first in range(0, len(frames), _AT_ONCE))
    with path.open("wb") as file:
        write_array(file.write, (len(frames), *one.shape[1:]), one.dtype, pieces)


def _raw(path: Path, dtype: type[np.generic]) -> np.ndarray:
    """A mapped file of numbers; an empty one cannot be mapped."""
    return np.memmap(path, dtype, mode="c") if path.stat().st_size else np.empty(0, dtype)
