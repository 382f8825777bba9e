"""Rows become receipts whatever happens."""

from __future__ import annotations

from dpscale.data.types import InputError
from dpscale.preprocess.manifest import Job
from dpscale.preprocess.receipts import Row, attempted, receipt, row_of

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


def test_the_receipt_of_a_clip_is_its_error_or_that_it_is_a_shard():
    rows = [row_of(JOB) | {"start": start, "rows": 4, "num_frames": 8, "seconds": 2.0} for start in (0, 4)]
    joined = rows[0] | {"joined": True, "note": "the store is full"}
    assert receipt([joined, rows[1]]) == joined | {"seconds": 4.0}, "whichever part was written last"
    failed = rows[1] | {"error": "full disk"}
    assert receipt([joined, failed])["error"] == "full disk"
    assert receipt([row_of(JOB)]) == row_of(JOB), "a movement has no shard"
