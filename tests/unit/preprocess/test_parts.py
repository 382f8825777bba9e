"""Parts become a shard when all are there, also when two actors find them at once."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dpscale.config.schema import Config
from dpscale.data.checkpoint import marker_of
from dpscale.data.layout import RunLayout
from dpscale.data.shards import read_clip, write_part
from dpscale.data.types import Clip
from dpscale.preprocess import parts
from dpscale.preprocess.manifest import Job
from dpscale.preprocess.parts import join_when_whole, part_path, shard_is_made
from dpscale.preprocess.receipts import Row, row_of
from tests.small_performer import small_clip, small_model

JOB = Job("main", "anna", "anna", "", "digest", "key", finished=False)


@pytest.fixture
def written(tmp_path: Path) -> tuple[RunLayout, Clip, list[Row]]:
    """A clip in two parts, and their rows in another order."""
    layout = RunLayout.of(Config.model_validate({"run": {"root": str(tmp_path)}}))
    clip = replace(small_clip("anna", small_model()), provenance={"key": "key"})
    rows = []
    for here in (slice(0, 5), slice(5, len(clip))):
        embedding = None if here.start else clip.image_embedding
        part = replace(clip, pose=clip.pose.at(here), frames=clip.frames[here], latents=clip.latents[here], image_embedding=embedding)
        row = row_of(JOB) | {"start": here.start, "rows": here.stop - here.start, "num_frames": len(clip)}
        write_part(part_path(layout, row), part, here.start)
        rows.insert(0, row)
    return layout, clip, rows


def test_parts_become_the_shard(written):
    layout, clip, rows = written
    assert not shard_is_made(layout, rows[0])
    assert join_when_whole(layout, None, rows[0]) == {"joined": True, "note": ""}
    assert shard_is_made(layout, rows[0])
    assert not shard_is_made(layout, rows[0] | {"key": "another"})
    assert not layout.parts("anna", "main", "key").exists()
    found = read_clip(layout.shard("anna", "main"))
    np.testing.assert_array_equal(found.frames, clip.frames)
    np.testing.assert_array_equal(found.pose.iuv, clip.pose.iuv)


def test_nothing_is_joined_before_the_last_part_is_there(written):
    layout, _, rows = written
    part_path(layout, rows[1]).rename(part_path(layout, rows[1]).with_name(".tmp-1-" + part_path(layout, rows[1]).name))
    assert join_when_whole(layout, None, rows[0]) == {}
    assert marker_of(layout.shard("anna", "main")) is None
    assert part_path(layout, rows[0]).exists()


def test_two_actors_that_find_all_parts_make_one_shard(written):
    layout, clip, rows = written
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda row: join_when_whole(layout, None, row), rows))
    assert {"joined": True, "note": ""} in found
    assert all(each in ({"joined": True, "note": ""}, {}) for each in found), "the second may find the parts gone"
    np.testing.assert_array_equal(read_clip(layout.shard("anna", "main")).frames, clip.frames)


def test_a_join_that_fails_because_another_was_faster_is_none(written, monkeypatch):
    layout, _, rows = written
    join = parts.join_parts

    def second(folder: Path, paths: list[Path]) -> None:
        join(folder, paths)
        shutil.rmtree(paths[0].parent)
        join(folder, paths)

    monkeypatch.setattr(parts, "join_parts", second)
    assert join_when_whole(layout, None, rows[0])["joined"]


def test_what_an_actor_left_undone_after_the_shard_is_done(written, monkeypatch):
    """It died before it removed the parts and gave the shard to the store."""
    layout, _, rows = written
    monkeypatch.setattr(parts.shutil, "rmtree", lambda *_, **__: None)
    join_when_whole(layout, None, rows[0])
    monkeypatch.undo()
    marker, given = marker_of(layout.shard("anna", "main")), []
    monkeypatch.setattr(parts, "shared", lambda *what: given.append(what) or "")
    assert join_when_whole(layout, "s3://store", rows[0])["joined"]
    assert given == [("s3://store", layout, "anna", "main")]
    assert not layout.parts("anna", "main", "key").exists()
    assert marker_of(layout.shard("anna", "main")) == marker


def test_a_part_that_cannot_be_read_is_an_error(written):
    layout, _, rows = written
    part_path(layout, rows[0]).write_bytes(b"not a part")
    with pytest.raises(pa.ArrowInvalid, match="magic bytes"):
        join_when_whole(layout, None, rows[0])
    assert marker_of(layout.shard("anna", "main")) is None


def test_what_the_store_says_is_noted(written, monkeypatch):
    layout, _, rows = written
    monkeypatch.setattr(parts, "shared", lambda *_: "finished, not shared: no room")
    assert join_when_whole(layout, "s3://full", rows[0] | {"note": "second person"})["note"] == "second person; finished, not shared: no room"
