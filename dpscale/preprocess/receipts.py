"""Rows of the preprocessing graph: which clip or part of a clip, and what became of it. Imports neither torch nor Ray."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from dpscale.data.types import InputError
from dpscale.preprocess.manifest import Job

log = logging.getLogger(__name__)

Row = dict[str, Any]
"""Which clip (fields of Job), which of its frames (`start`, `rows` of `num_frames`), and what is known: `error` is empty while all goes well,
`joined` once the clip is a shard."""


def row_of(job: Job) -> Row:
    """The row that a job enters the graph as."""
    which = {name: getattr(job, name) for name in ("kind", "name", "performer", "drive", "source", "key")}
    nothing_yet = {"note": "", "start": 0, "num_frames": 0, "rows": 0, "seconds": 0.0, "joined": False}
    return {**which, **nothing_yet, "error": "", "traceback": "", "input_at_fault": False, "chunk": None}


def attempted(row: Row, work: Callable[[], Row]) -> Row:
    """The row with what `work` returns and the time that it took; or with the error that it raised."""
    if row["error"]:
        return row
    start = time.monotonic()
    try:
        made = work()
    except InputError as wrong:
        made = {"error": str(wrong), "traceback": traceback.format_exc(), "input_at_fault": True}
    except Exception as wrong:  # whatever one clip does must not stop the others
        log.exception("%s failed", row["name"])
        where = traceback.extract_tb(wrong.__traceback__)[-1]
        error = f"{type(wrong).__name__}: {wrong} ({where.name}, {where.filename}:{where.lineno})"
        made = {"error": error, "traceback": traceback.format_exc()}
    return {**row, **made, "seconds": row["seconds"] + time.monotonic() - start}


def receipt(rows: Sequence[Row]) -> Row:
    """What became of a clip, of all rows that came of it: an error, if any of them has one, or else that it is a shard; with the seconds of all."""
    found = next((row for row in rows if row["error"]), None) or next((row for row in rows if row["joined"]), rows[-1])
    return {**found, "seconds": sum(row["seconds"] for row in rows)}
