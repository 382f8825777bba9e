"""Videos that people look at, as H.264 mp4s."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from jaxtyping import UInt8

CRF = 16
"""x264's quality: visually lossless at sizes where a person fills the picture."""


def write_mp4(path: Path, frames: UInt8[np.ndarray, "N H W 3"], fps: float) -> None:
    """H.264, yuv420p, index first: plays in every browser. Odd sides lose their last row or column. The same frames give the same bytes."""
    height, width = frames.shape[1] // 2 * 2, frames.shape[2] // 2 * 2
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        # One thread: x264's output depends on their number.
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": str(CRF), "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # Untagged colours are guessed from the size, differently by each player.
        stream.codec_context.colorspace, stream.codec_context.color_range = Colorspace.ITU709, ColorRange.MPEG
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            container.mux(stream.encode(picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)))
        container.mux(stream.encode())
