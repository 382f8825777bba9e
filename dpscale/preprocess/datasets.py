"""Lists the clips of a data set as people lay them out, and what in it is no clip, with the reason.

    manifest   a table of clips, see `clip_table`
    tiktok     NNNNN/images/0001.png ..., masks/ and densepose/ beside images/: each number is a performer whose clip is the folder of
               pictures, at 30 frames/s (Jafarian and Park, CVPR 2021). The folder that holds the numbers, or one TikTok_dataset/ above it.
    daily      person_01/clip_01.mp4, person_01/clip_02.mp4, ...: one folder a person, its videos right inside (daily-life videos as in
               DiffPerformer's 15 clips; their layout is not published, this one is assumed)
    clips      any other folder of videos, at any depth: the first sub-folder names the performer; of a video without one, its own name

Names become lower case, '-' for everything else; different ones that become the same are numbered, so nobody is taken for another.
No video is opened here. The same folder gives the same list."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dpscale.data.checkpoint import TEMPORARY
from dpscale.data.types import InputError
from dpscale.preprocess.clip_table import MAX_NAME, ClipRow, free_name, is_clip_table, read_clip_table
from dpscale.preprocess.image_folder import in_natural_order, pictures_in

Layout = Literal["manifest", "tiktok", "daily", "clips"]
LAYOUTS = get_args(Layout)

VIDEO_SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp", ".ogv"))
_TIKTOK = "TikTok_dataset"


@dataclass(frozen=True)
class Ignored:
    """A file or folder that gives no clip."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Ingested:
    """What a data set holds."""

    rows: tuple[ClipRow, ...]
    ignored: tuple[Ignored, ...]
    layout: Layout


@dataclass(frozen=True)
class Companions:
    """What the TikTok layout holds beside a folder of pictures, one picture a frame."""

    masks: Path | None
    densepose: Path | None


def list_clips(source: Path, layout: str = "auto") -> Ingested:
    """The clips of the data set at `source`, in natural order; `auto` recognises its layout. Raises InputError if it has not this layout."""
    if layout not in ("auto", *LAYOUTS):
        raise InputError(f"layout {layout!r} is unknown: allowed are auto, {', '.join(LAYOUTS)}")
    if not source.exists():
        raise InputError(f"{source}: no such file or folder: check the path")
    known = recognised(source)
    wanted = known if layout == "auto" else layout
    if wanted != known and {wanted, known} != {"daily", "clips"}:
        raise InputError(f"{source}: has not the layout {wanted} but {known}: leave the layout to be recognised, or give another folder")
    found = list(_LISTED[wanted](source.resolve() if source.is_dir() else source))
    rows = tuple(item for item in found if isinstance(item, ClipRow))
    return Ingested(rows, tuple(item for item in found if isinstance(item, Ignored)), wanted)


def recognised(source: Path) -> Layout:
    """The layout that `source` has. Raises InputError if it is a file and no table of clips."""
    if source.is_file():
        if not is_clip_table(source):
            raise InputError(f"{source}: is one file: give a folder, or a .csv or .parquet table of clips")
        return "manifest"
    if _numbered(_tiktok_root(source)):
        return "tiktok"
    videos = [path.relative_to(source).parts for path in _walked(source) if isinstance(path, Path)]
    people = [parts[0] for parts in videos if len(parts) == 2]
    return "daily" if len(people) == len(videos) > len(set(people)) else "clips"


def companions(clip: Path) -> Companions:
    """Masks and DensePose beside the clip `NNNNN/images`; None for what is not there."""
    beside = [clip.parent / name for name in ("masks", "densepose")]
    return Companions(*(path if path.is_dir() and any(path.iterdir()) else None for path in beside))


def _manifest(table: Path) -> Iterator[ClipRow | Ignored]:
    for row in read_clip_table(table):
        reason = _against_pictures(row.path) if row.path.is_dir() else _against_file(row.path)
        yield Ignored(row.path, reason) if reason else row


def _tiktok(folder: Path) -> Iterator[ClipRow | Ignored]:
    root = _tiktok_root(folder)
    clips = _numbered(root)
    for path in in_natural_order(list(root.iterdir())):
        if path not in clips:
            yield Ignored(path, "hidden" if _hidden(path) else "no folder NNNNN/images of the TikTok layout")
            continue
        reason = _against_pictures(path / "images")
        yield Ignored(path / "images", reason) if reason else ClipRow(path.name, path / "images")


def _tiktok_root(folder: Path) -> Path:
    """The folder of the numbers: archives lay it into one or two folders TikTok_dataset."""
    while not _numbered(folder) and (folder / _TIKTOK).is_dir():
        folder = folder / _TIKTOK
    return folder


def _numbered(folder: Path) -> set[Path]:
    return {path for path in folder.iterdir() if re.fullmatch(r"[0-9]{1,64}", path.name) and (path / "images").is_dir()}


def _daily(folder: Path) -> Iterator[ClipRow | Ignored]:
    for found in _named(folder):
        depth = len(found.path.relative_to(folder).parts)
        if isinstance(found, ClipRow) and depth != 2:
            yield Ignored(found.path, "not right inside a person's folder (layout daily; layout clips takes it)")
        else:
            yield found


def _named(folder: Path) -> Iterator[ClipRow | Ignored]:
    """A performer for each text that names one: the first sub-folder, or the file's stem."""
    names: dict[str, str] = {}
    for path in _walked(folder):
        if isinstance(path, Ignored):
            yield path
            continue
        parts = path.relative_to(folder).parts
        text = parts[0] if len(parts) > 1 else path.stem
        wanted = _safe(text)
        if not wanted:
            yield Ignored(path, f"{text!r} gives no name: rename it with letters a to z or digits")
            continue
        if text not in names:
            names[text] = free_name(wanted, names.values())
        yield ClipRow(names[text], path)


def _walked(folder: Path) -> Iterator[Path | Ignored]:
    """Every usable video below `folder`, in natural order, and what is not, each hidden folder as one. Links are followed, circles are not."""
    entered, unreadable = set[str](), list[OSError]()
    for root, folders, files in os.walk(folder, onerror=unreadable.append, followlinks=True):
        real = os.path.realpath(root)
        below = in_natural_order([Path(root, name) for name in folders])
        folders[:] = [] if real in entered else [path.name for path in below if not _hidden(path)]
        if real in entered:
            yield Ignored(Path(root), "the same folder as one that is listed already")
            continue
        entered.add(real)
        yield from (Ignored(path, "hidden") for path in below if _hidden(path))
        for path in in_natural_order([Path(root, name) for name in files]):
            reason = "hidden" if _hidden(path) else _against_suffix(path) or _against_file(path)
            yield Ignored(path, reason) if reason else path
    yield from (Ignored(Path(error.filename), f"cannot be listed ({error.strerror})") for error in unreadable)


def _hidden(path: Path) -> bool:
    return path.name.startswith((".", TEMPORARY))


def _against_suffix(path: Path) -> str:
    return "" if path.suffix.lower() in VIDEO_SUFFIXES else f"suffix {path.suffix!r} is not one of a video"


def _against_file(path: Path) -> str:
    """Why this is no file to read; empty if it is one."""
    if any("\ud800" <= character <= "\udfff" for character in str(path)):
        return "its path is not UTF-8: rename it"
    if not path.is_file():
        return "no such file" if not path.exists() else "not a file"
    return "" if path.stat().st_size else "empty (zero bytes)"


def _against_pictures(folder: Path) -> str:
    try:
        empty = [file for file in pictures_in(folder).files if not file.stat().st_size]
    except InputError as error:
        return str(error).removeprefix(f"{folder}: ")
    return f"{empty[0].name} is empty (zero bytes)" if empty else ""


def _safe(text: str) -> str:
    """`text` as a name of the config: lower case, '-' for everything else; empty if nothing is left."""
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-_")[:MAX_NAME]


_LISTED = {"manifest": _manifest, "tiktok": _tiktok, "daily": _daily, "clips": _named}
