"""Arrays of an .npz file, mapped where they lie uncompressed: what numpy.savez wrote is read page by page, never held whole."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dpscale.data.types import InputError
from dpscale.preprocess.decode import check_is_file

_READ_BYTES = 2**20
"""Arrays up to this size are read at once."""
_MOST_COMPRESSED_BYTES = 2**31
"""A compressed array has to be held whole."""
_LOCAL_HEADER = 30
"""Bytes of a zip member's own header before its name and extra field, whose lengths stand at byte 26."""
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def mapped_npz(path: Path) -> dict[str, np.ndarray]:
    """Read-only arrays by name, after every member's checksum was verified. Nothing is unpickled.

    Raises InputError if `path` is no .npz, is damaged, or holds objects or compressed arrays above 2 GiB."""
    check_is_file(path)
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: is not an .npz file: write it with numpy.savez")
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise InputError(f"{path}: {damaged} is damaged: copy or save it again")
            return {member.filename.removesuffix(".npy"): _array(path, archive, member) for member in archive.infolist()}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise InputError(f"{path}: is damaged or encrypted ({error}): copy or save it again") from error


def _array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    name = f"{path}: {member.filename.removesuffix('.npy')}"
    if not member.filename.endswith(".npy"):
        raise InputError(f"{name}: is no array: write the file with numpy.savez (torch.save writes pickles, which run code when they are read)")
    stored = member.compress_type == zipfile.ZIP_STORED
    if not stored and member.file_size > _MOST_COMPRESSED_BYTES:
        raise InputError(f"{name}: has {member.file_size / 2**30:.1f} GiB compressed: write it with numpy.savez, which is read frame by frame")
    with archive.open(member) as file:
        header = npy_header(name, file)
        if not stored or member.file_size <= _READ_BYTES:
            return np.frombuffer(file.read(), header.dtype).reshape(header.shape, order=header.order)
        begin = _data_begin(path, member) + file.tell()
    return np.memmap(path, header.dtype, "r", begin, header.shape, header.order)


@dataclass(frozen=True)
class NpyHeader:
    """What an array in an .npz file is."""

    shape: tuple[int, ...]
    dtype: np.dtype
    order: str
    """C or F."""


def npy_header(name: str, file: io.BufferedIOBase) -> NpyHeader:
    """Reads a .npy header and leaves `file` where the numbers begin. Raises InputError, which starts with `name`."""
    try:
        shape, fortran, dtype = _READERS[np.lib.format.read_magic(file)](file)
    except (ValueError, KeyError) as error:
        raise InputError(f"{name}: has no header that can be read ({error}): write the file with numpy.savez") from error
    if dtype.hasobject:
        raise InputError(f"{name}: holds Python objects, which run code when they are read: save plain arrays (numpy.asarray(x, float))")
    return NpyHeader(shape, dtype, "F" if fortran else "C")


def _data_begin(path: Path, member: zipfile.ZipInfo) -> int:
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", file.read(4))
    return member.header_offset + _LOCAL_HEADER + name_length + extra_length
