"""The steps of the preprocessing graph on rows: a clip, or some of its frames, in; what became of it out. No Ray in here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dpscale.config.sources import Drive, Performer
from dpscale.data.shards import write_part
from dpscale.preprocess.clips import Chunk, Tools, driving_chunks, encoded, main_chunks, prepare_person
from dpscale.preprocess.keys import settings_text
from dpscale.preprocess.parts import join_when_whole, part_path, shard_is_made
from dpscale.preprocess.receipts import Row, attempted


def find_person(tools: Tools, row: Row) -> Iterator[Row]:
    """Leaves the track of the person and the body in the run folder."""
    if row["kind"] == "driving":
        yield row
        return
    source = _drive(tools, row) if row["kind"] == "movement" else _performer(tools, row)
    yield attempted(row, lambda: {"note": prepare_person(tools, source, row["source"])})


def cut_frames(tools: Tools, row: Row) -> Iterator[Row]:
    """Rows with a Chunk each; the row itself where there are none to be made, or none can be."""
    if row["error"] or row["kind"] == "movement":
        yield row
        return
    chunks = _chunks(tools, row)
    while True:
        cut = attempted(row, lambda: {"chunk": next(chunks, None)})
        chunk: Chunk | None = cut["chunk"]
        if cut["error"] or chunk is None:
            if cut["error"]:
                yield cut
            return
        yield {**cut, "start": chunk.start, "num_frames": chunk.num_frames, "rows": len(chunk.clip)}
        row = {**row, "seconds": 0.0}  # receipts are added up


def encode_frames(tools: Tools, row: Row) -> Iterator[Row]:
    """The receipt for a part of a shard, or for the shard if it was the last part. What an earlier run left is not made again."""
    yield {**attempted(row, lambda: _write(tools, row)), "chunk": None}


STEPS: dict[str, Callable[[Tools, Row], Iterator[Row]]] = {
    "find the person, fit the body": find_person,
    "cut frames, draw the pose": cut_frames,
    "encode, write parts, join them": encode_frames,
}
"""In this order; `on_ray.py` says what runs them."""


def _write(tools: Tools, row: Row) -> Row:
    chunk: Chunk | None = row["chunk"]
    if chunk is None:
        return {}
    if not shard_is_made(tools.layout, row) and not part_path(tools.layout, row).exists():
        write_part(part_path(tools.layout, row), encoded(tools, chunk), chunk.start)
    return join_when_whole(tools.layout, tools.config.preprocess.store, row)


def _chunks(tools: Tools, row: Row) -> Iterator[Chunk]:
    provenance = {"key": row["key"], "source": row["source"], "settings": settings_text(tools.config)}
    if row["kind"] == "main":
        yield from main_chunks(tools, _performer(tools, row), row["source"], provenance)
    else:
        yield from driving_chunks(tools, _performer(tools, row), _drive(tools, row), row["source"], provenance)


def _performer(tools: Tools, row: Row) -> Performer:
    return next(p for p in tools.config.performers if p.name == row["performer"])


def _drive(tools: Tools, row: Row) -> Drive:
    return next(d for d in tools.config.drives if d.name == row["drive"])
