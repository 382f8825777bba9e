"""Reads videos with PyAV, one frame at a time: a video is never held whole at full size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from jaxtyping import UInt8

from dpscale.data.types import InputError

MIN_FRAMES = 2
"""A clip needs movement: fewer frames have none."""

_REENCODE = "re-encode it, for example with `ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4`"


@dataclass(frozen=True)
class VideoInfo:
    """What a video looks like when shown: after its rotation metadata."""

    height: int
    width: int
    fps: float


def probe(path: Path) -> VideoInfo:
    """Size and frame rate. Raises InputError if `path` is no video of at least MIN_FRAMES frames."""
    with _opened(path) as (container, stream):
        shown = [_size(frame) for frame in islice(_decoded(path, container), MIN_FRAMES)]
        if len(shown) < MIN_FRAMES:
            raise InputError(f"{path}: number of frames is {len(shown)}, at least {MIN_FRAMES} are needed: give a video of a moving person")
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            raise InputError(f"{path}: gives no frame rate; {_REENCODE}")
        return VideoInfo(*shown[0], fps=float(rate))


def read_frames(path: Path, max_frames: int, longest_side: int | None = None) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The first `max_frames` frames as RGB, upright, one at a time.

    `longest_side` shrinks larger pictures to that many px (area averaging), before they reach numpy. Raises InputError."""
    with _opened(path) as (container, _):
        for frame in islice(_decoded(path, container), max_frames):
            scale = min(1.0, longest_side / max(frame.width, frame.height)) if longest_side else 1.0
            picture = frame.to_ndarray(
                format="rgb24", width=max(1, round(frame.width * scale)), height=max(1, round(frame.height * scale)), interpolation="AREA"
            )
            yield np.rot90(picture, frame.rotation // 90)


def _size(frame: VideoFrame) -> tuple[int, int]:
    turned = frame.rotation % 180 != 0
    return (frame.width, frame.height) if turned else (frame.height, frame.width)


@contextmanager
def _opened(path: Path):
    """The container and its video stream."""
    check_is_file(path)
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise InputError(f"{path}: not a video that can be read ({error.strerror}); {_REENCODE}") from error
    with container:
        if not container.streams.video:
            raise InputError(f"{path}: has sound but no picture: give a file with a video stream")
        yield container, container.streams.video[0]


def check_is_file(path: Path) -> None:
    """Raises InputError unless `path` is a file with something in it."""
    if not path.exists():
        raise InputError(f"{path}: no such file: check the path")
    if path.is_dir():
        raise InputError(f"{path}: is a folder: give one video file, for example {path / 'clip.mp4'}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty (zero bytes): copy or download it again")


def _decoded(path: Path, container) -> Iterator[VideoFrame]:
    try:
        yield from container.decode(video=0)
    except av.FFmpegError as error:
        raise InputError(f"{path}: cannot be decoded to its end ({error.strerror}): the file is damaged or cut off; {_REENCODE}") from error
