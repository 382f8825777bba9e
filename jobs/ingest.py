"""`dpscale ingest DIR --out DIR`: what a data set holds, who is in it, and `clips.parquet`, the table that the other jobs take."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dpscale.data.types import InputError
from dpscale.preprocess.clip_length import clip_seconds
from dpscale.preprocess.clip_table import ClipRow, write_clip_table
from dpscale.preprocess.datasets import Ignored, list_clips

TABLE = "clips.parquet"
_SHOWN = 5  # files named for each reason


def run(folder: Path, out: Path, kind: str = "auto") -> int:
    """Prints a line a performer and a line a reason why files were ignored; writes `out`/clips.parquet. Raises InputError without a clip."""
    target, found = out / TABLE, list_clips(folder, kind)
    if target.resolve() == folder.resolve():
        raise InputError(f"{folder}: would be replaced by its own result: give another folder with --out")
    seconds, ignored = dict[ClipRow, float | None](), list(found.ignored)
    for row in found.rows:
        try:
            seconds[row] = clip_seconds(row)
        except InputError as error:
            ignored.append(Ignored(row.path, str(error).removeprefix(f"{row.path}: ")))
    tables = [_performers(seconds, f"{folder}, layout {found.layout}"), *([_reasons(ignored, folder)] if ignored else [])]
    Console(width=None if sys.stdout.isatty() else 160).print(*tables)
    if not seconds:
        raise InputError(f"{folder}: holds no clip that can be used: give a folder of videos, the TikTok dataset, or a table of clips")
    write_clip_table(target, seconds)
    print(f"{len(seconds)} clips of {len({row.performer for row in seconds})} performers -> {target}; {len(ignored)} ignored")
    print(f"next: dpscale preprocess --clips {shlex.quote(str(target))}")
    return 0


def _performers(seconds: dict[ClipRow, float | None], caption: str) -> Table:
    table = Table("performer", "clips", "seconds", "split", caption=escape(caption))
    for name in dict.fromkeys(row.performer for row in seconds):
        own = {row: length for row, length in seconds.items() if row.performer == name}
        split = ", ".join(f"{number} {split}" for split, number in Counter(row.split for row in own).items())
        table.add_row(name, str(len(own)), "?" if None in own.values() else f"{sum(own.values()):.1f}", split)
    return table


def _reasons(ignored: list[Ignored], folder: Path) -> Table:
    table = Table("ignored", "reason", "files")
    for reason, number in Counter(item.reason for item in ignored).most_common():
        names = [os.path.relpath(item.path, folder.resolve()) for item in ignored if item.reason == reason]
        shown = ", ".join(names[:_SHOWN] + ["..."] * (number > _SHOWN))
        table.add_row(str(number), escape(reason), escape(shown.encode(errors="replace").decode()))
    return table
