"""Deltas of several performers in host memory: read once, bounded, read ahead by another thread."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dpscale.data.types import InputError
from dpscale.diffusion.delta import FINETUNED, read_delta
from dpscale.joint import delta_cache
from dpscale.joint.delta_cache import DeltaCache

NUM_VALUES = 3001
"""Of each file; odd, so that in the file tensors lie anywhere."""


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Of five performers, all of one size."""
    found = [tmp_path / f"performer-{number}" for number in range(5)]
    for number, folder in enumerate(found):
        folder.mkdir()
        for name in FINETUNED:
            save_file({"a.half": torch.ones(3, dtype=torch.half), "b": torch.full((NUM_VALUES,), float(number))}, folder / name)
    return found


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Folders of files in the order in which they are read."""
    seen: list[str] = []

    def read(path: Path, pin: bool):
        seen.append(path.parent.name[-1])
        return read_delta(path, pin)

    monkeypatch.setattr(delta_cache, "read_delta", read)
    return seen


def size(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in FINETUNED)


def test_tensors_are_those_of_the_files_aligned(folders: list[Path]) -> None:
    deltas = DeltaCache(10**9).take(folders[3])
    assert [delta.path.name for delta in deltas] == list(FINETUNED)
    for delta in deltas:
        assert torch.equal(delta.tensors["b"], torch.full((NUM_VALUES,), 3.0))
        assert delta.tensors["a.half"].dtype == torch.half
        assert all(tensor.data_ptr() % 64 == 0 for tensor in delta.tensors.values())


def test_the_one_used_longest_ago_goes_first(folders: list[Path], reads: list[str]) -> None:
    cache = DeltaCache(3 * size(folders[0]))
    for number in (0, 1, 2, 0, 3, 0, 2, 1):
        cache.take(folders[number])
        assert cache.num_bytes <= 3 * size(folders[0])
    assert reads[::2] == ["0", "1", "2", "3", "1"]


@pytest.mark.parametrize("capacity", [0, 1.5, 2])
def test_those_in_use_stay_and_nothing_is_read_that_does_not_fit_beside_them(folders: list[Path], reads: list[str], capacity: float) -> None:
    cache = DeltaCache(int(capacity * size(folders[0])))
    cache.take(folders[0])
    fits = capacity == 2
    assert [cache.prefetch(folders[number]) for number in (1, 2, 3)] == [fits] * 3
    assert cache.prefetch(folders[0]), "they are there already"
    assert cache.num_bytes == (2 if fits else 1) * size(folders[0])
    cache.take(folders[0])
    cache.take(folders[3])
    assert reads[::2] == (["0", "1", "2", "3"] if fits else ["0", "3"])
    assert cache.num_bytes == (2 if fits else 1) * size(folders[0])


def test_who_wants_what_is_being_read_waits_and_others_do_not(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    slow, begun, reads = threading.Event(), threading.Event(), []

    def read(path: Path, pin: bool):
        reads.append(path.parent.name[-1])
        if path.parent == folders[0]:
            begun.set()
            assert slow.wait(60)
        return read_delta(path, pin)

    monkeypatch.setattr(delta_cache, "read_delta", read)
    cache = DeltaCache(10**9)
    with ThreadPoolExecutor(2) as threads:
        ahead = threads.submit(cache.prefetch, folders[0])
        assert begun.wait(60)
        cache.take(folders[1])
        used = threads.submit(cache.take, folders[0])
        assert not ahead.done()
        assert not used.done()
        slow.set()
        assert ahead.result(60)
        assert torch.equal(used.result(60)[0].tensors["b"], torch.zeros(NUM_VALUES))
    assert sorted(reads) == ["0", "0", "1", "1"]


def test_what_cannot_be_read_is_named_and_read_when_it_can(folders: list[Path]) -> None:
    cache, file = DeltaCache(10**9), folders[0] / FINETUNED[0]
    content = file.read_bytes()
    file.write_bytes(b"\0" * len(content))
    with pytest.raises(InputError, match=r"performer-0/denoiser\.safetensors cannot be read"):
        cache.prefetch(folders[0])
    file.write_bytes(content)
    assert torch.equal(cache.take(folders[0])[0].tensors["b"], torch.zeros(NUM_VALUES))
