"""A model's weights in a file that every process of a node maps: the system holds its pages once, however many read them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from dpscale.data.checkpoint import write_atomically
from dpscale.data.heap import trim_heap
from dpscale.data.types import InputError
from dpscale.diffusion.aligned import offsets, views

_UNUSED_S = 7 * 86400
"""Seconds after which a file that no process has mapped anew is removed, when another one is written."""


def map_weights(modules: Iterable[nn.Module], folder: Path | None = None) -> Path:
    """Puts the tensors of modules in host memory into a file below `folder` (none: of this user, on this node), named by the hash of
    what they hold, and maps them from there; returns the file. Values, alignment and so results stay the same to the bit.

    The mapping is private: what a process writes to a tensor is its own copy of that page. Raises InputError where the folder is not ours."""
    folder = _own_folder() if folder is None else folder
    tensors = [t for module in modules for t in (*module.parameters(), *module.buffers()) if t.is_contiguous() and t.numel() > 0]
    path = folder / f"{_digest(tensors)}.weights"
    with _locked(folder):
        mapped = _mapped(path, tensors)
        if mapped is None:
            write_atomically(path, lambda p: _write(p, tensors), durable=False)  # _mapped compares what it reads
            _remove_unused(folder)
            mapped = _mapped(path, tensors)
        os.utime(path)
    if mapped is None:
        raise OSError(f"{path} does not read as it was written")
    for tensor, same in zip(tensors, mapped, strict=True):
        tensor.data = same
    trim_heap()
    return path


def _mapped(path: Path, tensors: list[Tensor]) -> list[Tensor] | None:
    """Equal ones from the file; None where it is not there or holds anything else."""
    size = offsets(tensors)[-1]
    if not path.is_file() or path.stat().st_size != size:
        return None
    found = views(torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8), tensors)
    return found if all(torch.equal(_bytes(a), _bytes(b)) for a, b in zip(tensors, found, strict=True)) else None


def _write(path: Path, tensors: list[Tensor]) -> None:
    with path.open("wb") as file:
        for tensor, (begin, end) in zip(tensors, pairwise(offsets(tensors)), strict=True):
            file.write(_bytes(tensor).numpy())
            file.write(bytes(end - begin - tensor.nbytes))


def _digest(tensors: list[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor).numpy())
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().view(-1).view(torch.uint8)


def _own_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"dpscale-weights-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise InputError(f"{folder} is not a folder that you alone may write to: remove it, or set TMPDIR to another place on the node's disk")
    return folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time: where two wrote the same file, the first would map one that nobody else finds."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_unused(folder: Path) -> None:
    """Processes that still map such a file keep it."""
    for path in folder.iterdir():
        if path.name != "lock" and path.stat().st_mtime < time.time() - _UNUSED_S:
            path.unlink()
