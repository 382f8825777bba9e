from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dpscale.data.checkpoint import MARKER
from dpscale.data.shard_checks import check_shard, find_shards
from dpscale.data.shards import FILE_NAME, write_clip
from dpscale.data.types import Clip
from tests.small_performer import small_clip, small_model


@pytest.fixture(scope="module")
def clip() -> Clip:
    sound = small_clip("ann", small_model())
    return replace(sound, pose=replace(sound.pose, iuv=np.maximum(sound.pose.iuv, 1)))


def _broken(clip: Clip, field: str, frame: int, value: float) -> Clip:
    array = getattr(clip.pose, field).copy()
    array[frame] = value
    return replace(clip, pose=replace(clip.pose, **{field: array}))


def test_a_sound_shard_has_no_problems(clip: Clip, tmp_path: Path) -> None:
    write_clip(tmp_path / "shard", clip)
    report = check_shard(tmp_path / "shard")
    assert report.problems == ()
    assert report.num_bytes == (tmp_path / "shard" / FILE_NAME).stat().st_size
    np.testing.assert_array_equal(report.clip.frames, clip.frames)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("keypoints", np.nan, "keypoints is not finite in frame 4"),
        ("flow", np.inf, "flow is not finite in frame 4"),
        ("flow", 2.5, "flow leaves the picture in frame 4"),
        ("iuv", 25, "iuv names parts above 24 in frame 4"),
        ("iuv", 0, "no body in the iuv in frame 4"),
    ],
)
def test_rows_that_contradict_themselves_are_named(clip: Clip, tmp_path: Path, field: str, value: float, message: str) -> None:
    write_clip(tmp_path / "shard", _broken(clip, field, 4, value))
    assert message in check_shard(tmp_path / "shard").problems


def test_many_bad_frames_are_counted(clip: Clip, tmp_path: Path) -> None:
    write_clip(tmp_path / "shard", replace(clip, latents=np.full_like(clip.latents, np.nan)))
    assert check_shard(tmp_path / "shard").problems == ("latents is not finite in frame 0, 1, 2, 3, 4 and 10 more",)


def test_flow_off_the_body_is_wrong(clip: Clip, tmp_path: Path) -> None:
    wrong = _broken(_broken(clip, "iuv", 2, 0), "flow_valid", 2, True)
    write_clip(tmp_path / "shard", wrong)
    assert "flow is valid off the body in frame 2" in check_shard(tmp_path / "shard").problems


def _flip_a_byte(folder: Path) -> None:
    content = bytearray((folder / FILE_NAME).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / FILE_NAME).write_bytes(content)


def _cut(folder: Path) -> None:
    (folder / FILE_NAME).write_bytes((folder / FILE_NAME).read_bytes()[:1000])


def _lose_marker(folder: Path) -> None:
    (folder / MARKER).unlink()


def _claim_more_rows(folder: Path) -> None:
    marker = json.loads((folder / MARKER).read_text())
    (folder / MARKER).write_text(json.dumps(marker | {"num_frames": 99}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip_a_byte, "sha256 differs"),
        (_cut, "cannot be read"),
        (_lose_marker, "unfinished"),
        (_claim_more_rows, "has 15 rows that do not count from 0 to 99 - 1"),
    ],
)
def test_damage_is_found(clip: Clip, tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    write_clip(tmp_path / "shard", clip)
    damage(tmp_path / "shard")
    assert any(message in problem for problem in check_shard(tmp_path / "shard").problems)


def test_shards_are_found_at_any_depth_finished_or_not(clip: Clip, tmp_path: Path) -> None:
    finished, unfinished = tmp_path / "shards" / "performer=ann" / "clip=main", tmp_path / "shards" / "performer=bob" / "clip=main"
    write_clip(finished, clip)
    unfinished.mkdir(parents=True)
    assert find_shards(tmp_path) == [finished, unfinished]
    assert find_shards(finished) == [finished]
    assert find_shards(tmp_path / "nothing") == []
