from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import psutil
import pytest

from dpscale.data.array_files import PIECE, give_back, mapped, save_array, scratch_array, write_array, write_frames, write_videos

FRAMES = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)


def test_a_video_written_frame_by_frame_is_a_plain_npy_file(tmp_path: Path) -> None:
    write_frames(tmp_path / "a.npy", (4, 6, 5), iter(FRAMES))
    np.save(tmp_path / "b.npy", FRAMES)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_several_videos_are_a_plain_npz_file(tmp_path: Path) -> None:
    write_videos(tmp_path / "a.npz", (4, 6, 5), {"one": iter(FRAMES), "two": FRAMES[:, :, ::-1]})
    with np.load(tmp_path / "a.npz") as read:
        assert read.files == ["one", "two"]
        np.testing.assert_array_equal(read["one"], FRAMES)
        np.testing.assert_array_equal(read["two"], FRAMES[:, :, ::-1])


@pytest.mark.parametrize("frames", [FRAMES[:3], np.concatenate([FRAMES, FRAMES]), FRAMES[:, :, :4]])
def test_frames_that_do_not_fit_are_refused(tmp_path: Path, frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="not"):
        write_frames(tmp_path / "a.npy", (4, 6, 5), frames)


def test_a_mapped_file_stays_as_it_is_and_can_be_read_again_after_it_was_forgotten(tmp_path: Path) -> None:
    write_frames(tmp_path / "a.npy", (4, 6, 5), FRAMES)
    array = mapped(tmp_path / "a.npy")
    assert array.flags.writeable, "torch warns of arrays that are not"
    np.testing.assert_array_equal(array, FRAMES)
    give_back(array[1:])
    np.testing.assert_array_equal(array, FRAMES)
    np.save(tmp_path / "large.npy", np.ones((16, 1024, 1024), np.uint8))
    large = mapped(tmp_path / "large.npy")
    large.sum()
    before = _mapped_kib()
    give_back(large[3:])
    assert _mapped_kib() < before - 12 * 1024, "of 16 MiB"
    own = FRAMES.copy()
    give_back(own)
    np.testing.assert_array_equal(own, FRAMES)


def _mapped_kib() -> int:
    """Pages of files in this process's memory."""
    return int(re.search(r"RssFile:\s+(\d+)", Path("/proc/self/status").read_text())[1])


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


def test_rows_of_another_type_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.npy").open("wb") as file, pytest.raises(ValueError, match=r"row 2 has shape \(3,\) and type float64, not \(3,\) and float32"):
        write_array(file.write, (4, 3), np.dtype(np.float32), [np.ones((2, 3), np.float32), np.ones((2, 3))])
