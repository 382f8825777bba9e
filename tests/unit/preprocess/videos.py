"""Small videos made on the spot with PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_video(
    path: Path,
    frames: np.ndarray,
    fps: float = 10.0,
    codec: str = "libx264rgb",
    pix_fmt: str | None = None,
    options: dict[str, str] | None = None,
    times: list[int] | None = None,
) -> Path:
    """Lossless by default: uint8 frames [N, H, W, 3 or 4]; `times` in units of 1 / fps, one a frame, for a variable rate."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames.shape[1], frames.shape[2]
        stream.pix_fmt = pix_fmt or ("rgb24" if codec == "libx264rgb" else "yuv420p")
        stream.options = {"crf": "0"} | (options or {}) if codec.startswith("libx264") else options or {}
        for n, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgba" if frames.shape[-1] == 4 else "rgb24")
            if times is not None:
                picture.pts, picture.time_base = times[n], 1 / Fraction(fps).limit_denominator(1001)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def write_hdr(path: Path, frames: np.ndarray, transfer: int) -> Path:
    """Frames whose values are taken as a signal of this transfer characteristic (16: PQ, 18: HLG), in BT.2020, 10 bits."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=10)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p10le"
        name = {16: "smpte2084", 18: "arib-std-b67"}[transfer]
        stream.options = {"x265-params": f"lossless=1:log-level=none:colorprim=bt2020:transfer={name}:colormatrix=bt2020nc"}
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture = picture.reformat(format="yuv420p10le", dst_colorspace=9, dst_color_trc=transfer, dst_color_primaries=9)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4410), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turn_clockwise(path: Path) -> None:
    """Sets the display matrix of an mp4 to a quarter turn clockwise, as phones held upright do (ISO 14496-12, tkhd)."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    matrix = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[start : start + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(data)


def pattern(num_frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Frames that all differ: coarse random colours."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (num_frames, height // 4, width // 4, 3), np.uint8)
    return small.repeat(4, 1).repeat(4, 2)
