"""A clip goes to Parquet and back to the bit, and plain pyarrow reads it."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from dpscale.data.shards import FILE_NAME, ShardError, is_complete, read_clip, write_clip
from dpscale.data.types import BodyMotion, BodyShape, Clip, Pose


def make_clip(num_frames: int = 5, size: int = 16) -> Clip:
    rng = np.random.default_rng(0)

    def floats(*shape: int, dtype: type = np.float32) -> np.ndarray:
        return rng.normal(size=shape).astype(dtype)

    motion = BodyMotion(floats(num_frames, 7, 3, 3), floats(num_frames, 3), 1.2 / 0.7, (8.1, 7.9))
    pose = Pose(
        floats(num_frames, 18, 3), rng.integers(0, 256, (num_frames, size, size, 3), np.uint8), floats(num_frames, size, size, 2, dtype=np.float16),
        rng.random((num_frames, size, size)) < 0.5, BodyShape(rng.normal(size=8), rng.normal(size=9), rng.normal(size=3)), motion,
    )  # fmt: skip
    return Clip(
        "anna", "main", 29.97, 4, pose, frames=rng.integers(0, 256, (num_frames, size, size, 3), np.uint8),
        latents=floats(num_frames, 4, 2, 2, dtype=np.float16), image_embedding=floats(6),
        mask=rng.integers(0, 256, (num_frames, size, size), np.uint8), provenance={"key": "abc", "fit": "body_fit"},
    )  # fmt: skip


def assert_same(a: Clip, b: Clip) -> None:
    assert (a.performer, a.clip, a.fps, a.num_train, a.provenance) == (b.performer, b.clip, b.fps, b.num_train, b.provenance)
    assert (a.pose.motion.focal_px, a.pose.motion.center_px) == (b.pose.motion.focal_px, b.pose.motion.center_px)
    for name in ("keypoints", "iuv", "flow", "flow_valid"):
        np.testing.assert_array_equal(getattr(a.pose, name), getattr(b.pose, name), err_msg=name)
    for name in ("rotations", "root"):
        np.testing.assert_array_equal(getattr(a.pose.motion, name), getattr(b.pose.motion, name), err_msg=name)
    for name in ("betas", "log_scales", "girths"):
        np.testing.assert_array_equal(getattr(a.pose.shape, name), getattr(b.pose.shape, name), err_msg=name)
    for name in ("frames", "latents", "image_embedding", "mask"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def test_round_trip_keeps_every_bit(tmp_path):
    clip = make_clip()
    write_clip(tmp_path / "performer=anna" / "clip=main", clip)
    back = read_clip(tmp_path / "performer=anna" / "clip=main")
    assert_same(clip, back)
    assert back.pose.flow_valid.dtype == bool
    assert back.pose.flow.dtype == np.float32
    assert back.pose.iuv.flags.writeable


def test_a_driving_clip_has_no_pictures(tmp_path):
    write_clip(tmp_path / "c", replace(make_clip(), frames=None, latents=None, image_embedding=None))
    back = read_clip(tmp_path / "c")
    assert back.frames is None
    assert back.latents is None
    assert back.image_embedding is None


def test_plain_pyarrow_reads_a_shard_and_its_hive_path(tmp_path):
    clip = make_clip()
    write_clip(tmp_path / "performer=anna" / "clip=main", clip)
    table = pq.read_table(tmp_path)
    np.testing.assert_array_equal(table["iuv"].combine_chunks().to_numpy_ndarray(), clip.pose.iuv)
    assert table["frame"].to_pylist() == [0, 1, 2, 3, 4]
    assert {str(v) for v in table["performer"].to_pylist()} == {"anna"}


def test_equal_clips_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write_clip(tmp_path / name, make_clip())
    assert (tmp_path / "a" / FILE_NAME).read_bytes() == (tmp_path / "b" / FILE_NAME).read_bytes()
    assert (tmp_path / "a" / "_COMPLETE.json").read_bytes() == (tmp_path / "b" / "_COMPLETE.json").read_bytes()


def test_several_row_groups_keep_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr("dpscale.data.shards._ROW_GROUP_BYTES", 10_000)
    clip = make_clip(num_frames=12)
    write_clip(tmp_path / "c", clip)
    assert pq.ParquetFile(tmp_path / "c" / FILE_NAME).num_row_groups > 1
    assert_same(clip, read_clip(tmp_path / "c"))


def test_unfinished_or_foreign_shards_are_refused(tmp_path):
    (tmp_path / "c").mkdir()
    assert not is_complete(tmp_path / "c")
    with pytest.raises(ShardError, match="no finished shard"):
        read_clip(tmp_path / "c")
    write_clip(tmp_path / "d", make_clip())
    table = pq.read_table(tmp_path / "d" / FILE_NAME)
    pq.write_table(table.replace_schema_metadata({b"dpscale": b'{"schema": 99}'}), tmp_path / "d" / FILE_NAME)
    with pytest.raises(ShardError, match="schema 99"):
        read_clip(tmp_path / "d")
