"""The manifest of a data set, one row a clip: whom it shows, where it lies, from when to when, what it is for.

A .csv or .parquet file. Columns come in any order and case; all but the first two may be missing or empty:

    performer,path,start,end,split
    ann,ann/monday.mp4,,,
    ann,ann/tuesday.mp4,2.5,40,train
    bob,../bob.mov,,12.5,test

`start` and `end` are seconds of the clip (empty: its own). `split` says what the clip is for: train, test, or auto (empty), which
trains on the leading part of the clip and tests on its tail. Relative paths count from the manifest's folder. A path is a video
file or a folder of numbered pictures; whether it is there is for its reader to say, so that one lost file stops no batch."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from dpscale.data.checkpoint import write_atomically
from dpscale.data.layout import safe_name
from dpscale.data.types import InputError

Split = Literal["train", "test", "auto"]

REQUIRED = ("performer", "path")
COLUMNS = (*REQUIRED, "start", "end", "split")
MAX_NAME = 64
"""Characters of a performer's name in a config."""

_SAME_COLUMN = {"start_s": "start", "end_s": "end"}
_CSV, _PARQUET = (".csv", ".tsv"), (".parquet", ".pq")
_SCHEMA = pa.schema([("performer", pa.string()), ("path", pa.string()), ("start", pa.float64()), ("end", pa.float64()), ("split", pa.string())])
_SHOWN_ERRORS = 10


@dataclass(frozen=True)
class ClipRow:
    """One clip of one performer."""

    performer: str
    path: Path
    """Absolute: a video file, or a folder of numbered pictures."""
    start_s: float | None = None
    """None: the clip's own beginning."""
    end_s: float | None = None
    """None: the clip's own end."""
    split: Split = "auto"


def is_clip_table(path: Path) -> bool:
    """Whether the name is one of a manifest."""
    return path.suffix.lower() in (*_CSV, *_PARQUET)


def read_clip_table(path: Path) -> tuple[ClipRow, ...]:
    """The rows of a manifest. Raises InputError with one line a bad row: its number (1 is the first below the header) and column."""
    rows: dict[tuple[str, Path, float], ClipRow] = {}
    numbers: dict[tuple[str, Path, float], str] = {}
    errors: list[str] = []
    for record in _records(path):
        try:
            row = _row(record, path.parent.resolve())
            key = (row.performer, row.path.resolve(), row.start_s or 0.0)
            if key in rows:
                raise record.error("performer, path, start", f"the same as {numbers[key]}: keep one of the two")
            rows[key], numbers[key] = row, record.number
        except InputError as error:
            errors.append(f"{path}: {error}")
    if errors:
        more = [f"... and {len(errors) - _SHOWN_ERRORS} more rows"] if len(errors) > _SHOWN_ERRORS else []
        raise InputError("\n".join([*errors[:_SHOWN_ERRORS], *more]))
    return tuple(rows.values())


def write_clip_table(path: Path, rows: Iterable[ClipRow]) -> None:
    """Writes a Parquet manifest, atomically. Paths below its folder are written relative to it: the folder may move as a whole."""
    folder = path.parent.resolve()
    cells = [[row.performer, _written(row.path, folder), row.start_s, row.end_s, row.split] for row in rows]
    table = pa.Table.from_pylist([dict(zip(COLUMNS, values, strict=True)) for values in cells], schema=_SCHEMA)
    write_atomically(path, lambda temporary: pq.write_table(table, temporary))


def to_performers(rows: Iterable[ClipRow]) -> list[dict[str, Any]]:
    """The rows as entries of `config.performers`, each a performer of its own, because names there are unique.

    The first clip of `ann` is performer `ann`, the next are `ann-2`, `ann-3`, ... in the order of the rows; a number that another
    performer of the table has as its name is left out. start_s, end_s and split appear where they say something."""
    rows = list(rows)
    taken, begun, entries = {row.performer for row in rows}, set[str](), []
    for row in rows:
        name = free_name(row.performer, taken) if row.performer in begun else row.performer
        begun.add(row.performer)
        taken.add(name)
        limits = {key: value for key, value in (("start_s", row.start_s), ("end_s", row.end_s)) if value is not None}
        entries.append({"kind": "video", "name": name, "path": str(row.path)} | limits | ({} if row.split == "auto" else {"split": row.split}))
    return entries


def free_name(wanted: str, taken: Container[str]) -> str:
    """`wanted`, or `wanted-2`, `wanted-3`, ...: the first that is not taken, no longer than a name may be."""
    name, numbers = wanted, count(2)
    while name in taken:
        number = f"-{next(numbers)}"
        name = wanted[: MAX_NAME - len(number)] + number
    return name


@dataclass(frozen=True)
class _Record:
    """One row as it stands in the file."""

    number: str
    cells: dict[str, Any]
    surplus: str = ""
    """A cell to the right of the last column."""

    def text(self, column: str) -> str:
        """Empty where the cell or the whole column is missing; numbers of a Parquet file as they are written."""
        value = self.cells.get(column)
        return "" if value is None or value != value else str(value).strip()  # NaN, pandas' empty cell, differs from itself

    def error(self, column: str, text: str) -> InputError:
        return InputError(f"{self.number}, column {column}: {text}")


def _records(path: Path) -> Iterator[_Record]:
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}: give a .csv or .parquet table of clips")
    if path.suffix.lower() in _CSV:
        return _csv_records(path)
    if path.suffix.lower() in _PARQUET:
        return _parquet_records(path)
    raise InputError(f"{path}: suffix {path.suffix!r} is no table of clips: give a .csv or .parquet file")


def _csv_records(path: Path) -> Iterator[_Record]:
    table = _csv_cells(path)
    names = _column_names(path, table[0][1] if table else [])
    for n, (line, cells) in enumerate(table[1:], start=1):
        yield _Record(f"row {n} (line {line})", dict(zip(names, cells, strict=False)), "".join(cells[len(names) :]).strip())


def _csv_cells(path: Path) -> list[tuple[int, list[str]]]:
    """(number of its line, cells) of each row that is not empty. Spreadsheets separate by ',', ';' or tabs: the header tells."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        separator = max(",;\t", key=text.partition("\n")[0].count)
        reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
        return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error}): save it as one") from error


def _parquet_records(path: Path) -> Iterator[_Record]:
    try:
        with pq.ParquetFile(path) as file:  # read_table would take columns from folders named `key=value`, too
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a Parquet file that can be read ({error}): write it again") from error
    names = _column_names(path, table.column_names)
    for n, cells in enumerate(zip(*(column.to_pylist() for column in table.columns), strict=True), start=1):
        yield _Record(f"row {n}", dict(zip(names, cells, strict=True)))


def _column_names(path: Path, header: Sequence[str]) -> list[str]:
    names = [_SAME_COLUMN.get(name.strip().lower(), name.strip().lower()) for name in header]
    allowed = f"allowed are {', '.join(COLUMNS)}"
    unknown = [given for given, name in zip(header, names, strict=True) if name not in COLUMNS]
    if unknown:
        raise InputError(f"{path}: unknown column {', '.join(map(repr, unknown))}: {allowed}")
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise InputError(f"{path}: column {', '.join(missing)} is missing: {allowed}, of which {' and '.join(REQUIRED)} must be there")
    twice = [name for name in COLUMNS if names.count(name) > 1]
    if twice:
        raise InputError(f"{path}: column {twice[0]} is there {names.count(twice[0])} times: keep one")
    return names


def _row(record: _Record, folder: Path) -> ClipRow:
    if record.surplus:
        raise record.error(f"{len(record.cells) + 1}", f"{record.surplus!r} stands behind the last column: quote a path that holds the separator")
    start, end = _seconds(record, "start"), _seconds(record, "end")
    if end is not None and end <= (start or 0.0):
        raise record.error("end", f"{end:g} s is not after start = {start or 0:g} s: give a later end, or leave it empty for the clip's own")
    return ClipRow(_performer(record), _path(record, folder), start, end, _split(record))


def _performer(record: _Record) -> str:
    try:
        return safe_name(record.text("performer"))
    except ValueError as error:
        raise record.error("performer", str(error)) from error


def _path(record: _Record, folder: Path) -> Path:
    text = record.text("path")
    if not text or "\0" in text:
        raise record.error("path", f"{text!r} names no file: give a video file or a folder of pictures")
    return folder / text


def _seconds(record: _Record, column: str) -> float | None:
    text = record.text(column)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise record.error(column, f"{text!r} is no time in the clip: give seconds from 0 on, for example 2.5, or leave it empty")
    return value


def _split(record: _Record) -> Split:
    text = record.text("split").lower() or "auto"
    for split in get_args(Split):
        if text == split:
            return split
    raise record.error("split", f"{text!r} is unknown: allowed are {', '.join(get_args(Split))}, or leave it empty for auto")


def _written(path: Path, folder: Path) -> str:
    path = path.absolute()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)
