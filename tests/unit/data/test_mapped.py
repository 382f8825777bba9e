from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil

from dpscale.data.mapped import PIECE, give_back, save_array, scratch_array


def test_a_scratch_array_keeps_what_is_written_and_leaves_the_memory() -> None:
    array = scratch_array((64, 2**20), np.uint8)
    before = psutil.Process().memory_info().rss
    for n in range(64):
        array[n] = n
        give_back(array[n])
    assert psutil.Process().memory_info().rss - before < 16 * 2**20, "64 MiB went through"
    assert (array[:, ::65536] == np.arange(64)[:, None]).all()


def test_giving_back_leaves_other_arrays_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(5000))
    own, mapped = np.arange(5000), np.load(tmp_path / "a.npy", mmap_mode="c")
    for array in (own, mapped):
        give_back(array)
        np.testing.assert_array_equal(array, np.arange(5000))


def test_a_saved_array_is_what_numpy_would_have_saved(tmp_path: Path) -> None:
    array = scratch_array((2 * PIECE + 3, 5), np.int16)
    array[:] = np.arange(array.size).reshape(array.shape)
    save_array(tmp_path / "ours.npy", array)
    np.save(tmp_path / "numpy.npy", np.asarray(array))
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
