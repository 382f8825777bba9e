"""What is written past the cache is what safetensors reads, whole files and ragged ones, also where there is no way past it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dpscale.data import tensor_file
from dpscale.data.tensor_file import save_tensors, write_past_cache


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(1000, 37, generator=generator)
    return {
        "odd": torch.arange(3, dtype=torch.uint8), "table": drawn, "half": drawn[:5].half(), "brain": drawn[:7].bfloat16(),
        "double": drawn[:2].double(), "step": torch.tensor(12.0), "empty": torch.zeros(0, 4), "columns": drawn.t(),
        "yes": torch.tensor([True, False]), "number": torch.tensor([2**40]),
    }  # fmt: skip


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(found[k].dtype == v.dtype and torch.equal(found[k], v) for k, v in expected.items())


@pytest.mark.parametrize("at_once", [4096, 3 * 4096, 2**24])
def test_safetensors_reads_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(tensor_file, "_AT_ONCE", at_once)
    save_tensors(tmp_path / "state.safetensors", tensors())
    assert same(load_file(tmp_path / "state.safetensors"), tensors())


def test_the_file_is_as_long_as_safetensors_own(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    save_tensors(ours, tensors())
    save_file({name: tensor.contiguous() for name, tensor in tensors().items()}, theirs)
    data = [path.stat().st_size - 8 - int.from_bytes(path.read_bytes()[:8], "little") for path in (ours, theirs)]
    assert data[0] == data[1]


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 2**24, 2**24 + 5])
def test_files_of_every_length(tmp_path: Path, size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    write_past_cache(tmp_path / "file", lambda: [data[: size // 3], data[size // 3 :]])
    assert (tmp_path / "file").read_bytes() == data.tobytes()


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system knows no direct writes")
@pytest.mark.parametrize("refuses", ["open", "write"])
def test_a_file_system_without_direct_writes_gets_ordinary_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: str) -> None:
    really, direct = {"open": os.open, "write": os.write}, set()

    def opened(path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT and refuses == "open":
            raise OSError(errno.EINVAL, "no direct writes here")
        descriptor = really["open"](path, flags, mode)
        direct.discard(descriptor)
        if flags & os.O_DIRECT:
            direct.add(descriptor)
        return descriptor

    def written(descriptor: int, data) -> int:
        if descriptor in direct:
            raise OSError(errno.EINVAL, "nor here")
        return really["write"](descriptor, data)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "write", written)
    save_tensors(tmp_path / "state.safetensors", tensors())
    assert same(load_file(tmp_path / "state.safetensors"), tensors())


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        save_tensors(tmp_path / "state.safetensors", tensors())


def test_a_dtype_of_no_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="complex64"):
        save_tensors(tmp_path / "state.safetensors", {"x": torch.zeros(2, dtype=torch.complex64)})
