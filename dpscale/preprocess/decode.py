"""Reads videos with PyAV as a viewer would show them, one frame at a time: a video is never held whole at full size.

Upright, at a constant frame rate, deinterlaced, in SDR, without transparency. What libavfilter can do, it does."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import ColorTrc
from jaxtyping import Float, UInt8

from dpscale.data.types import InputError

log = logging.getLogger(__name__)

MIN_FRAMES = 2
"""A clip needs movement: fewer frames have none."""

_DECODER_THREADS = 1
"""Clips are decoded beside each other: a thread a core for each of them would only keep more frames in memory."""
CONTAINERS = {
    "format_whitelist": "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,nut,ivf,h264,hevc,av1,m4v,mjpeg,gif,apng,dv,rm,wtv,gxf,"
    "yuv4mpegpipe"
}
"""Option of av.open: files that hold their pictures themselves. Playlists (hls, dash, concat, ...) name other files, which may be somebody else's."""
_REENCODE = "re-encode it, for example with `ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4`"
_HDR = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)
_UNEVEN = 0.25
"""Part of a frame's duration by which times may be off at a constant rate: containers round them."""
_BEHIND_TRANSPARENCY = 128
_USABLE_PART = 0.5
"""Of a damaged video: so many of its frames must lie before the damage."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video looks like when shown."""

    height: int
    width: int
    fps: float
    changes: tuple[str, ...] = ()
    """What has to be done to its frames to show them so, in words."""


def probe(path: Path, fps: float | None = None) -> VideoInfo:
    """Size, and the constant frame rate at which `read_frames` with the same `fps` gives frames.

    Raises InputError if `path` is no video of at least MIN_FRAMES frames."""
    with _opened(path) as (container, stream):
        rate = _rate(path, stream, fps)
        first = list(islice(_decoded(path, container, 0), MIN_FRAMES))
        if len(first) < MIN_FRAMES:
            raise InputError(f"{path}: number of frames is {len(first)}, at least {MIN_FRAMES} are needed: give a video of a moving person")
        return VideoInfo(*_size(first[0]), fps=float(rate.fps), changes=tuple(change.why for change in _changes(first[0], rate)))


def read_frames(path: Path, max_frames: int, longest_side: int | None = None, fps: float | None = None) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The first `max_frames` frames as RGB, upright, one at a time.

    `longest_side` shrinks larger pictures to that many px (area averaging), before they reach numpy. `fps` resamples in time (none:
    the video's own rate, made constant where it is not). Of a video that is damaged past its middle the part before is given, with a
    warning. Raises InputError."""
    with _opened(path) as (container, stream):
        rate = _rate(path, stream, fps)
        for frame in islice(_as_shown(_decoded(path, container, rate.num_packets), rate), max_frames):
            scale = min(1.0, longest_side / max(frame.width, frame.height)) if longest_side else 1.0
            picture = _rgb(frame, max(1, round(frame.height * scale)), max(1, round(frame.width * scale)))
            yield np.rot90(picture, frame.rotation // 90)


@dataclass(frozen=True)
class _Rate:
    fps: Fraction
    constant: bool
    """Whether decoded frames come at `fps` already."""
    num_packets: int


@dataclass(frozen=True)
class _Change:
    """One step of libavfilter."""

    why: str
    name: str
    options: str


def _rate(path: Path, stream, fps: float | None) -> _Rate:
    """The rate to give frames at, from the times of the packets."""
    times = _times(path)
    steps = np.diff(times)
    usual = float(np.median(steps)) if len(steps) else 0.0
    declared = stream.average_rate or stream.guessed_rate
    even = usual <= 0 or bool((np.abs(steps - usual) <= max(_UNEVEN * usual, 1.5 * float(stream.time_base or 0))).all())
    own = declared if even else Fraction(_neat(1 / usual)).limit_denominator(1001)
    if not own:
        raise InputError(f"{path}: gives no frame rate; {_REENCODE}")
    wanted = Fraction(fps).limit_denominator(1001) if fps else own
    return _Rate(wanted, even and abs(wanted / own - 1) < 1e-3, len(times))


def _times(path: Path) -> Float[np.ndarray, " P"]:
    """Times at which frames are shown, in s; nothing is decoded."""
    with _opened(path) as (container, stream):
        base = float(stream.time_base or 0)
        try:
            return np.sort([packet.pts * base for packet in container.demux(stream) if packet.pts is not None])
        except av.FFmpegError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); {_REENCODE}") from error


def _neat(rate: float) -> float:
    """A variable rate hovers about the one that was meant."""
    return float(round(rate)) if abs(rate / round(rate) - 1) < 0.02 else rate


def _changes(first: VideoFrame, rate: _Rate) -> Iterator[_Change]:
    if first.interlaced_frame:
        yield _Change("deinterlaced", "yadif", "mode=send_frame")
    if first.color_trc in _HDR:
        yield _Change("HDR mapped to SDR", "scale", "out_transfer=bt709:out_primaries=bt709:out_color_matrix=bt709")
    if not rate.constant:
        yield _Change(f"resampled to {float(rate.fps):g} frames/s", "fps", f"fps={rate.fps}:round=near")


def _as_shown(frames: Iterator[VideoFrame], rate: _Rate) -> Iterator[VideoFrame]:
    first = next(frames, None)
    if first is None:
        return
    changes = list(_changes(first, rate))
    every = _chain(first, frames)
    yield from _filtered(first, every, changes) if changes else every


def _chain(first: VideoFrame, rest: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
    yield first
    yield from rest


def _filtered(first: VideoFrame, frames: Iterator[VideoFrame], changes: list[_Change]) -> Iterator[VideoFrame]:
    graph = Graph()
    last = graph.add_buffer(width=first.width, height=first.height, format=first.format, time_base=first.time_base)
    for step in [graph.add(change.name, change.options) for change in changes] + [graph.add("buffersink")]:
        last.link_to(step)
        last = step
    graph.configure()
    for frame in _chain_end(frames):
        graph.push(frame)
        yield from _pulled(graph)


def _chain_end(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame | None]:
    """The frames, then the end that makes filters give what they hold back."""
    yield from frames
    yield None


def _pulled(graph: Graph) -> Iterator[VideoFrame]:
    while True:
        try:
            yield graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return


def _rgb(frame: VideoFrame, height: int, width: int) -> UInt8[np.ndarray, "H W 3"]:
    """What is transparent stands before mid-grey, where neither dark nor light people vanish."""
    if not any(component.is_alpha for component in frame.format.components):
        return frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")
    picture = frame.to_ndarray(format="rgba", width=width, height=height, interpolation="AREA").astype(np.float32)
    cover = picture[..., 3:] / 255
    return np.rint(picture[..., :3] * cover + _BEHIND_TRANSPARENCY * (1 - cover)).astype(np.uint8)


def _size(frame: VideoFrame) -> tuple[int, int]:
    turned = frame.rotation % 180 != 0
    return (frame.width, frame.height) if turned else (frame.height, frame.width)


@contextmanager
def _opened(path: Path):
    """The container and its video stream."""
    check_is_file(path)
    try:
        container = av.open(str(path), options=CONTAINERS)
    except av.FFmpegError as error:
        raise InputError(f"{path}: not a video that can be read ({error.strerror}); {_REENCODE}") from error
    with container:
        if not container.streams.video:
            raise InputError(f"{path}: has sound but no picture: give a file with a video stream")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = _DECODER_THREADS
        yield container, stream


def check_is_file(path: Path) -> None:
    """Raises InputError unless `path` is a file with something in it."""
    if not path.exists():
        raise InputError(f"{path}: no such file: check the path")
    if path.is_dir():
        raise InputError(f"{path}: is a folder: give one video file, for example {path / 'clip.mp4'}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty (zero bytes): copy or download it again")


def _decoded(path: Path, container, num_expected: int) -> Iterator[VideoFrame]:
    done = 0
    try:
        for frame in container.decode(video=0):
            yield frame
            done += 1
    except av.FFmpegError as error:
        if not num_expected or done < max(MIN_FRAMES, _USABLE_PART * num_expected):
            raise InputError(
                f"{path}: cannot be decoded past frame {done} of {num_expected or 'an unknown number'} ({error.strerror}): "
                f"the file is damaged or cut off; {_REENCODE}"
            ) from error
        log.warning("%s: damaged or cut off after frame %d of %d (%s): the frames before are used", path, done, num_expected, error.strerror)
