"""Rows of the preprocessing graph: which clip or part of a clip, and what became of it. Imports neither torch nor Ray."""

from __future__ import annotations

import logging
import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpscale.data.checkpoint import marker_of
from dpscale.data.layout import RunLayout
from dpscale.data.shards import join_parts
from dpscale.data.types import InputError
from dpscale.preprocess.manifest import MAIN, Job
from dpscale.preprocess.sharing import shared

log = logging.getLogger(__name__)

Row = dict[str, Any]
"""Which clip (fields of Job), which of its frames (`start`, `rows` of `num_frames`), and what is known: `error` is empty while all goes well."""


def row_of(job: Job) -> Row:
    """The row that a job enters the graph as."""
    which = {name: getattr(job, name) for name in ("kind", "name", "performer", "drive", "source", "key")}
    nothing_yet = {"note": "", "start": 0, "num_frames": 0, "rows": 0, "seconds": 0.0, "error": "", "traceback": "", "input_at_fault": False}
    return {**which, **nothing_yet, "chunk": None}


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


@dataclass
class Arrived:
    """Receipts of one clip so far."""

    rows: list[Row] = field(default_factory=list)

    @property
    def failed(self) -> Row | None:
        return next((row for row in self.rows if row["error"]), None)

    @property
    def whole(self) -> bool:
        """Whether every frame is in a part."""
        return self.failed is None and bool(self.rows) and sum(row["rows"] for row in self.rows) == self.rows[0]["num_frames"] > 0


def part_path(layout: RunLayout, row: Row) -> Path:
    """Where the frames of a row are kept until the clip is whole."""
    return layout.parts(row["performer"], row["drive"] or MAIN, row["key"]) / f"{row['start']:08d}-{row['rows']:04d}.parquet"


class Joiner:
    """Makes shards of parts. An actor beside the graph's, light and early, so that the first whole clip need not wait for a process."""

    def __init__(self, store: str | None, layout: RunLayout) -> None:
        self.store, self.layout = store, layout

    def join(self, receipts: list[Row]) -> Row:
        """The parts of a whole clip as its shard, given to the store where there is one. May be done twice."""
        ordered = sorted(receipts, key=lambda row: row["start"])
        return attempted(ordered[-1], lambda: self._join(ordered))

    def _join(self, ordered: list[Row]) -> Row:
        row, clip = ordered[-1], ordered[-1]["drive"] or MAIN
        folder, parts = self.layout.shard(row["performer"], clip), [part_path(self.layout, one) for one in ordered]
        if (marker_of(folder) or {}).get("key") != row["key"]:
            join_parts(folder, parts)
        shutil.rmtree(parts[0].parent, ignore_errors=True)
        problem = shared(self.store, self.layout, row["performer"], clip) if self.store else ""
        return {"note": "; ".join(note for note in (row["note"], problem) if note)}
