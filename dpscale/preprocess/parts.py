"""Parts of a shard: written chunk by chunk by whatever actor has the chunk; the one that finds them all there makes the shard of them."""

from __future__ import annotations

import shutil
from pathlib import Path

from dpscale.data.checkpoint import marker_of
from dpscale.data.layout import RunLayout
from dpscale.data.shards import join_parts
from dpscale.preprocess.manifest import MAIN
from dpscale.preprocess.receipts import Row
from dpscale.preprocess.sharing import shared


def part_path(layout: RunLayout, row: Row) -> Path:
    """Where the frames of a row are kept until the clip is whole."""
    return _folder(layout, row) / f"{row['start']:08d}-{row['rows']:04d}.parquet"


def shard_is_made(layout: RunLayout, row: Row) -> bool:
    """Whether the clip's shard is there, of these inputs and settings."""
    return (marker_of(layout.shard(row["performer"], _clip(row))) or {}).get("key") == row["key"]


def join_when_whole(layout: RunLayout, store: str | None, row: Row) -> Row:
    """If the parts of all frames are there: makes the shard, gives it to the store where there is one, and says so in what the row becomes.

    Goes on from wherever an actor died. Two actors may each have written one of the last two parts, and both join: the shards are equal, and
    the second one's failure is none."""
    if not shard_is_made(layout, row):
        parts = sorted(_folder(layout, row).glob("[0-9]*.parquet"))
        if sum(int(path.stem.split("-")[1]) for path in parts) < row["num_frames"]:
            return {}
        try:
            join_parts(layout.shard(row["performer"], _clip(row)), parts)
        except OSError:
            if not shard_is_made(layout, row):
                raise
    shutil.rmtree(_folder(layout, row), ignore_errors=True)
    problem = shared(store, layout, row["performer"], _clip(row)) if store else ""
    return {"joined": True, "note": "; ".join(note for note in (row["note"], problem) if note)}


def _folder(layout: RunLayout, row: Row) -> Path:
    return layout.parts(row["performer"], _clip(row), row["key"])


def _clip(row: Row) -> str:
    return row["drive"] or MAIN
