"""Large arrays in files: written piece by piece and read through a memory mapping, so that memory does not grow with a video's length."""

from __future__ import annotations

import mmap
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

Frames = Iterable[UInt8[np.ndarray, "H W 3"]]
Write = Callable[[bytes | memoryview], object]

PIECE = 64
"""Rows (frames) that are copied at once."""


# ----------------------------------------------------------------------------------------- reading


def mapped(path: Path) -> Shaped[np.ndarray, ...]:
    """An .npy file, mapped: what is read of it is the system's to drop. Writing to the array would change it in memory alone."""
    return np.load(path, mmap_mode="c")


def scratch_array(shape: tuple[int, ...], dtype: Any) -> np.memmap:
    """A writable array in a temporary file without a name: the file goes with the array."""
    with tempfile.TemporaryFile(prefix="dpscale-") as file:
        return np.memmap(file, dtype, "w+", 0, shape)


def give_back(array: np.ndarray) -> None:
    """Lets the system take what was read of a mapped array out of this process; what was written to the file stays there, and changes to a
    copy-on-write mapping are undone. Other arrays are left alone."""
    mapping: Any = array
    while isinstance(mapping, np.ndarray):
        mapping = mapping.base
    if isinstance(mapping, mmap.mmap):
        mapping.madvise(mmap.MADV_DONTNEED)


# ----------------------------------------------------------------------------------------- writing


def write_array(write: Write, shape: tuple[int, ...], dtype: np.dtype, pieces: Iterable[Shaped[np.ndarray, ...]]) -> None:
    """An .npy file of `shape` from its rows, some at a time. Raises ValueError where they have another shape or type, or are too few or many."""
    header, rows = BytesIO(), 0
    np.lib.format.write_array_header_1_0(header, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
    write(header.getvalue())
    for piece in pieces:
        if piece.shape[1:] != shape[1:] or piece.dtype != dtype:
            raise ValueError(f"row {rows} has shape {piece.shape[1:]} and type {piece.dtype}, not {shape[1:]} and {dtype}")
        write(np.ascontiguousarray(piece).data)
        rows += len(piece)
    if rows != shape[0]:
        raise ValueError(f"there are {rows} rows, not {shape[0]}")


def save_array(path: Path, array: np.ndarray) -> None:
    """np.save, but a mapped array passes through memory in pieces."""
    with path.open("wb") as file:
        write_array(file.write, array.shape, array.dtype, _pieces(array))


def write_frames(path: Path, shape: tuple[int, int, int], frames: Frames) -> None:
    """N frames of H x W px (`shape`: N, H, W) as uint8 .npy [N, H, W, 3]."""
    with path.open("wb") as file:
        _write_frames(file.write, shape, frames)


def write_videos(path: Path, shape: tuple[int, int, int], videos: Mapping[str, Frames]) -> None:
    """Several videos of one size as an uncompressed .npz, like numpy.savez."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, frames in videos.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                _write_frames(file.write, shape, frames)


def _write_frames(write: Write, shape: tuple[int, int, int], frames: Frames) -> None:
    write_array(write, (*shape, 3), np.dtype(np.uint8), (frame[None] for frame in frames))


def _pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    for begin in range(0, len(array), PIECE):
        yield array[begin : begin + PIECE]
        give_back(array)
