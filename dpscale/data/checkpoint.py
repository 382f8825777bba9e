"""Atomic files and folders: what is there is whole, whatever was killed while it was written."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARKER = "_COMPLETE.json"
"""Present in a folder only when everything else in it is whole."""

TEMPORARY = ".tmp-"
"""How the name of everything begins that is still being written."""


def write_atomically(path: Path, write: Callable[[Path], object], durable: bool = True) -> None:
    """Calls `write` with a temporary sibling of `path`, syncs it and renames it to `path`.

    Not `durable`: it is not waited for the disk, and after a crash of the machine the file may hold anything; for what is checked when read.

    The temporary name keeps the suffix of `path`, because writers choose formats by it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{path.name}")
    try:
        write(temporary)
        if durable:
            _sync(temporary)
        os.replace(temporary, path)
        if durable:
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_atomically(path, lambda p: p.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n"))


def commit_folder(folder: Path, write: Callable[[Path], object], marker: dict[str, Any]) -> None:
    """Calls `write` with a temporary sibling of `folder`, adds the marker and renames it to `folder`.

    A complete folder of that name is replaced; an incomplete one is removed first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{folder.name}")
    temporary.mkdir()
    try:
        write(temporary)
        (temporary / MARKER).write_text(json.dumps(marker, indent=2, sort_keys=True) + "\n")
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def marker_of(folder: Path) -> dict[str, Any] | None:
    """The marker of a complete folder, or None."""
    try:
        return json.loads((folder / MARKER).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
