"""safetensors files of states that are written often, are large and are hardly ever read again: written past the system's page cache.

Filling the cache with them takes several times as long as writing them to a disk, and drives out what will be read."""

from __future__ import annotations

import errno
import json
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_AT_ONCE = 2**24
_BLOCK = 4096
"""What the system wants lengths and addresses of direct writes to be multiples of."""

Bytes = UInt8[np.ndarray, " _"]


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A file for safetensors.torch.load_file; unlike those of its save_file, the tensors may share memory. KeyError: a dtype that is not among
    ours. OSError: the disk is full, for instance."""
    # The widest first, as the format wants it: every tensor's address is a multiple of its element's size.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header, end = {}, 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    beginning = np.frombuffer(len(text).to_bytes(8, "little") + text, np.uint8)

    def pieces() -> Iterator[Bytes]:
        yield beginning
        for _, tensor in ordered:
            yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()

    write_past_cache(path, pieces)


def write_past_cache(path: Path, pieces: Callable[[], Iterable[Bytes]]) -> None:
    """A file of what `pieces()` gives, which may be asked twice; through the cache after all, where system or file system knows no other way."""
    direct = getattr(os, "O_DIRECT", 0)
    try:
        _write(path, pieces(), direct)
    except OSError as error:
        if not direct or error.errno != errno.EINVAL:
            raise
        _write(path, pieces(), 0)


def _write(path: Path, pieces: Iterable[Bytes], flags: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flags, 0o666)
    try:
        with mmap.mmap(-1, _AT_ONCE) as aligned:
            size = 0
            for length in _filled(aligned, pieces):
                _write_all(descriptor, aligned, -(-length // _BLOCK) * _BLOCK)
                size += length
            os.ftruncate(descriptor, size)  # the last block was written whole
    finally:
        os.close(descriptor)


def _filled(buffer: mmap.mmap, pieces: Iterable[Bytes]) -> Iterator[int]:
    """Lengths of what now lies at the buffer's beginning: all of it, but for the last time."""
    filled = 0
    for piece in pieces:
        rest = piece.data
        while len(rest):
            count = min(len(rest), _AT_ONCE - filled)
            buffer[filled : filled + count] = rest[:count]
            rest, filled = rest[count:], filled + count
            if filled == _AT_ONCE:
                yield filled
                filled = 0
    if filled:
        yield filled


def _write_all(descriptor: int, buffer: mmap.mmap, length: int) -> None:
    with memoryview(buffer) as view:
        written = 0
        while written < length:
            with view[written:length] as rest:
                written += os.write(descriptor, rest)
