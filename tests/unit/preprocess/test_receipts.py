"""Rows become receipts whatever happens, and parts become a shard, also when asked twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dpscale.config.schema import Config
from dpscale.data.checkpoint import marker_of
from dpscale.data.layout import RunLayout
from dpscale.data.shards import read_clip, write_part
from dpscale.data.types import Clip, InputError
from dpscale.preprocess.manifest import Job
from dpscale.preprocess.receipts import Arrived, Joiner, Row, attempted, part_path, row_of
from tests.small_performer import small_clip, small_model

JOB = Job("main", "anna", "anna", "", "digest", "key", finished=False)


def bad_input() -> Row:
    raise InputError("anna.mp4: is empty")


def crash() -> Row:
    raise ZeroDivisionError("by nothing")


def test_an_error_becomes_part_of_the_row():
    refused, crashed = attempted(row_of(JOB), bad_input), attempted(row_of(JOB), crash)
    assert (refused["error"], refused["input_at_fault"]) == ("anna.mp4: is empty", True)
    assert crashed["error"].startswith("ZeroDivisionError: by nothing (crash, ")
    assert not crashed["input_at_fault"]
    assert "bad_input" in refused["traceback"]
    assert "crash" in crashed["traceback"]


def test_a_row_with_an_error_passes_untouched():
    row = row_of(JOB) | {"error": "no"}
    assert attempted(row, crash) is row


def test_times_add_up():
    row = attempted(row_of(JOB) | {"seconds": 5.0}, lambda: {"note": "done"})
    assert row["seconds"] >= 5.0
    assert row["note"] == "done"


def test_a_clip_is_whole_when_every_frame_has_come_and_none_failed():
    rows = [row_of(JOB) | {"start": start, "rows": 4, "num_frames": 8} for start in (4, 0)]
    assert not Arrived().whole
    assert not Arrived(rows[:1]).whole
    assert Arrived(rows).whole
    failed = rows[1] | {"error": "full disk"}
    assert not Arrived([rows[0], failed]).whole
    assert Arrived([rows[0], failed]).failed == failed
    assert not Arrived([row_of(JOB)]).whole, "a row without frames is no clip"


@pytest.fixture
def parts(tmp_path: Path) -> tuple[RunLayout, Clip, list[Row]]:
    """A clip in two parts, and their receipts in another order."""
    layout = RunLayout.of(Config.model_validate({"run": {"root": str(tmp_path)}}))
    clip = small_clip("anna", small_model())
    clip = replace(clip, provenance={"key": "key"})
    receipts = []
    for here in (slice(0, 5), slice(5, len(clip))):
        embedding = None if here.start else clip.image_embedding
        part = replace(clip, pose=clip.pose.at(here), frames=clip.frames[here], latents=clip.latents[here], image_embedding=embedding)
        row = row_of(JOB) | {"start": here.start, "rows": here.stop - here.start, "num_frames": len(clip)}
        write_part(part_path(layout, row), part, here.start)
        receipts.insert(0, row)
    return layout, clip, receipts


def test_parts_become_the_shard_once_and_stay_it(parts):
    layout, clip, receipts = parts
    joiner = Joiner(None, layout)
    assert joiner.join(receipts)["error"] == ""
    marker = marker_of(layout.shard("anna", "main"))
    assert not layout.parts("anna", "main", "key").exists()
    assert joiner.join(receipts)["error"] == "", "a retried call finds the shard instead of the parts"
    assert marker_of(layout.shard("anna", "main")) == marker
    found = read_clip(layout.shard("anna", "main"))
    np.testing.assert_array_equal(found.frames, clip.frames)
    np.testing.assert_array_equal(found.pose.iuv, clip.pose.iuv)


def test_a_missing_part_is_an_error_of_that_clip(parts):
    layout, _, receipts = parts
    part_path(layout, receipts[0]).unlink()
    assert "FileNotFoundError" in Joiner(None, layout).join(receipts)["error"]
    assert marker_of(layout.shard("anna", "main")) is None
