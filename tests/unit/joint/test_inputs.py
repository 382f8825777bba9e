from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from dpscale.config.schema import Config, JointConfig
from dpscale.data.checkpoint import MARKER
from dpscale.data.shards import ShardReader, write_clip
from dpscale.data.types import Clip
from dpscale.diffusion.reference import known_frames
from dpscale.field.loss import HumanFlow
from dpscale.joint.inputs import decode_inputs, mapped_human_flow, mapped_known, mapped_pose
from dpscale.joint.loop import optimise
from dpscale.joint.video import VideoTask
from tests.small_performer import small_clip, small_model
from tests.unit.field.small_field import SMALL
from tests.unit.joint.small_video import bits, inverting_refresh


def moving_clip(valid_part: float, num_frames: int = 40) -> Clip:
    clip = small_clip("ann", small_model(), num_frames, 25)
    rng = np.random.default_rng(3)
    flow = rng.normal(0, 0.05, clip.pose.flow.shape).astype(np.float16).astype(np.float32)
    valid = rng.random(clip.pose.flow_valid.shape) < valid_part
    iuv = np.where(rng.random(clip.pose.iuv.shape) < 0.5, clip.pose.iuv, 0).astype(np.uint8)
    return dataclasses.replace(clip, mask=iuv[..., 1], pose=dataclasses.replace(clip.pose, flow=flow, flow_valid=valid, iuv=iuv))


def decoded(tmp_path: Path, clip: Clip, background: bool = False) -> tuple[Path, ShardReader]:
    write_clip(tmp_path / "shard", clip)
    reader = ShardReader(tmp_path / "shard")
    decode_inputs(tmp_path / "inputs", "key", reader, np.arange(clip.num_train, len(clip)), reader, clip.num_train, background)
    return tmp_path / "inputs", reader


def test_mapped_arrays_are_those_of_the_shard(tmp_path: Path) -> None:
    clip = moving_clip(0.3)
    folder, reader = decoded(tmp_path, clip)
    pose, known, truth = mapped_pose(folder, reader), mapped_known(folder), clip.pose.at(slice(25, None))
    for name in ("keypoints", "iuv", "flow", "flow_valid"):
        np.testing.assert_array_equal(getattr(pose, name), getattr(truth, name))
        assert isinstance(getattr(pose, name), np.memmap)
    np.testing.assert_array_equal(pose.motion.rotations, truth.motion.rotations)
    assert (pose.motion.focal_px, pose.motion.center_px) == (truth.motion.focal_px, truth.motion.center_px)
    for name in ("frames", "iuv", "keypoints", "mask"):
        np.testing.assert_array_equal(getattr(known, name), getattr(known_frames(clip), name))


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("valid_part", [0.0, 0.3])
def test_the_human_flow_is_that_of_the_whole_video(tmp_path: Path, background: bool, valid_part: float) -> None:
    clip = moving_clip(valid_part)
    folder, _ = decoded(tmp_path, clip, background)
    pose = clip.pose.at(slice(25, None))
    flow, valid, body = (torch.from_numpy(a) for a in (pose.flow, pose.flow_valid, pose.iuv[..., 0] > 0))
    whole, made = HumanFlow.of(flow, valid, body, background), mapped_human_flow(folder)
    assert (len(whole.pixels) > 0) == (background or valid_part > 0)
    assert torch.equal(made.pixels, whole.pixels)
    assert torch.equal(made.flow, whole.flow)


def test_a_mapped_video_is_optimised_to_the_same_bits(tmp_path: Path) -> None:
    clip = moving_clip(0.3)
    folder, reader = decoded(tmp_path, clip)
    config = Config(field=SMALL, joint=JointConfig(steps=4, refresh_interval=2, warm_up_steps=2))
    pose, known = clip.pose.at(slice(25, None)), known_frames(clip)
    in_memory = VideoTask("ann--self", config, pose, clip.frames[0], clip.image_embedding, known)
    from_disk = VideoTask("ann--self", config, mapped_pose(folder, reader), clip.frames[0], clip.image_embedding, mapped_known(folder), folder)
    one, two = (optimise(video, inverting_refresh, lambda *_: None, lambda _: None) for video in (in_memory, from_disk))
    assert bits(one) == bits(two)


def test_inputs_are_decoded_once_and_again_for_another_key(tmp_path: Path) -> None:
    clip = moving_clip(0.3, 30)
    folder, reader = decoded(tmp_path, clip)
    before = (folder / MARKER).stat().st_ino
    decode_inputs(folder, "key", reader, np.arange(25, 30), reader, 25, False)
    assert (folder / MARKER).stat().st_ino == before
    decode_inputs(folder, "other", reader, np.arange(26, 30), reader, 25, False)
    assert len(mapped_pose(folder, reader)) == 4
