"""Clips that cannot be used, in `<run>/quarantine.parquet`: what failed, why, when, and where in the code.

A clip whose input is at fault is not tried again until its file or a setting behind it changes; anything else (a full disk, a bug) is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dpscale.data.checkpoint import write_atomically


@dataclass(frozen=True)
class Quarantined:
    """One clip that failed."""

    name: str
    """Of the outcome: performer, `performer/drive`, or `drive NAME`."""
    key: str
    """Hash of its footage and settings; empty where the footage could not even be read."""
    reason: str
    traceback: str
    input_at_fault: bool
    time: datetime

    @classmethod
    def now(cls, name: str, key: str, reason: str, traceback: str, input_at_fault: bool) -> Quarantined:
        return cls(name, key, reason, traceback, input_at_fault, datetime.now(UTC))


_SCHEMA = pa.schema(
    [
        ("name", pa.string()), ("key", pa.string()), ("reason", pa.string()), ("traceback", pa.string()),
        ("input_at_fault", pa.bool_()), ("time", pa.timestamp("us", tz="UTC")),
    ]
)  # fmt: skip


def read_quarantine(path: Path) -> dict[str, Quarantined]:
    """By name; empty where there is none."""
    if not path.exists():
        return {}
    return {row["name"]: Quarantined(**row) for row in pq.read_table(path, schema=_SCHEMA).to_pylist()}


def update_quarantine(path: Path, failed: Iterable[Quarantined], finished: Iterable[str]) -> None:
    """Adds what failed and drops what finished, atomically. A list that becomes empty leaves no file."""
    before = read_quarantine(path)
    after = {name: entry for name, entry in before.items() if name not in set(finished)} | {entry.name: entry for entry in failed}
    if not after:
        path.unlink(missing_ok=True)
    elif after != before:
        rows = [vars(entry) for _, entry in sorted(after.items())]
        write_atomically(path, lambda p: pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), p))


def still_quarantined(entry: Quarantined | None, key: str) -> bool:
    """Whether trying again with this key must fail the same way."""
    return entry is not None and entry.input_at_fault and entry.key == key != ""
