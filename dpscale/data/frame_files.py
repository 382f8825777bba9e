"""Whole videos as .npy and .npz files: written frame by frame and read mapped, so that memory does not grow with their length."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8

Frames = Iterable[UInt8[np.ndarray, "H W 3"]]


def write_frames(path: Path, shape: tuple[int, int, int], frames: Frames) -> None:
    """N frames of H x W px (`shape`: N, H, W) as uint8 .npy [N, H, W, 3]."""
    with path.open("wb") as file:
        _write(file.write, shape, frames)


def write_videos(path: Path, shape: tuple[int, int, int], videos: Mapping[str, Frames]) -> None:
    """Several videos of one size as an uncompressed .npz, like numpy.savez."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, frames in videos.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                _write(file.write, shape, frames)


def mapped(path: Path) -> Shaped[np.ndarray, ...]:
    """An .npy file, mapped: what is read of it is the system's to drop. Writing to the array would change it in memory alone."""
    return np.load(path, mmap_mode="c")


def _write(write: Callable[[bytes | memoryview], object], shape: tuple[int, int, int], frames: Frames) -> None:
    whole, header = (*shape, 3), BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": whole})
    write(header.getvalue())
    number = 0
    for number, frame in enumerate(frames, start=1):
        if frame.shape != whole[1:]:
            raise ValueError(f"frame {number - 1} has shape {frame.shape}, not {whole[1:]}")
        write(np.ascontiguousarray(frame).data)
    if number != shape[0]:
        raise ValueError(f"there are {number} frames, not {shape[0]}")
