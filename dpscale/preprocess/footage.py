"""A clip's frames wherever they lie: a stretch of a video file, or of a folder of numbered pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from dpscale.data.types import InputError
from dpscale.preprocess.decode import MIN_FRAMES, VideoInfo, check_is_file, probe, read_frames
from dpscale.preprocess.image_folder import folder_digest, probe_folder, read_folder


@dataclass(frozen=True)
class Footage:
    """Where the frames are. Times in s; none: to the end."""

    path: Path
    start_s: float = 0.0
    end_s: float | None = None

    def probe(self, fps: float | None = None) -> VideoInfo:
        """Size, and the constant frame rate at which `frames` with the same `fps` gives frames. Raises InputError."""
        return probe_folder(self.path, resample_to=fps) if self.path.is_dir() else probe(self.path, fps)

    def frames(self, max_frames: int, longest_side: int | None = None, fps: float | None = None) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """The first `max_frames` frames of the stretch as RGB, one at a time (see decode.read_frames). Raises InputError."""
        first, last = 0, max_frames
        if self.start_s or self.end_s is not None:
            rate = self.probe(fps).fps
            first = round(self.start_s * rate)
            last = first + max_frames if self.end_s is None else min(first + max_frames, round(self.end_s * rate))
        read = read_folder(self.path, last, longest_side, resample_to=fps) if self.path.is_dir() else read_frames(self.path, last, longest_side, fps)
        given = 0
        for frame in islice(read, first, None):
            yield frame
            given += 1
        if first and given < MIN_FRAMES:
            raise InputError(f"{self.path}: start_s = {self.start_s:g} leaves {given} frames, at least {MIN_FRAMES} are needed: start earlier")

    def digest(self) -> str:
        """Content hash of the stretch's source, and which stretch it is. Raises InputError."""
        content = folder_digest(self.path) if self.path.is_dir() else file_digest(self.path)
        if not self.start_s and self.end_s is None:
            return content
        return hashlib.sha256(f"{content} {self.start_s!r} {self.end_s!r}".encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Raises InputError unless `path` is a file with something in it."""
    check_is_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def path_digest(path: Path) -> str:
    """Of a file, or of all files right inside a folder by name and content. Raises InputError."""
    if not path.is_dir():
        return file_digest(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.iterdir() if p.is_file()):
        with file.open("rb") as opened:
            digest.update(file.name.encode() + b"\0" + hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
