"""Long videos in files: arrays that are used piece by piece through a memory mapping, and need not stay in memory."""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

PIECE = 64
"""Rows (frames) that are copied at once."""


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


def save_array(path: Path, array: np.ndarray) -> None:
    """np.save, but a mapped array passes through memory in pieces."""
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for begin in range(0, len(array), PIECE):
            np.ascontiguousarray(array[begin : begin + PIECE]).tofile(file)
            give_back(array)
