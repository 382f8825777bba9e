from __future__ import annotations

import struct

import av
import numpy as np
import pytest

from dpscale.data.mp4 import write_mp4


def smooth_frames(num_frames=6, height=48, width=64):
    y, x = np.mgrid[:height, :width]
    picture = np.stack([x * 255 / width, y * 255 / height, np.full_like(x, 90.0)], -1)
    return np.stack([np.roll(picture, n, axis=1) for n in range(num_frames)]).astype(np.uint8)


def test_an_mp4_comes_back_with_its_frames_rate_and_colours(tmp_path):
    frames = smooth_frames()
    write_mp4(tmp_path / "a.mp4", frames, 12.5)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == pytest.approx(12.5)
        back = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(stream)])
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames).mean() < 3  # chroma at half resolution, crf 16


def top_level_boxes(data):
    boxes, at = [], 0
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        boxes.append(kind.decode())
        at += size
    return boxes


def test_the_index_comes_first_and_equal_frames_give_equal_bytes(tmp_path):
    frames = smooth_frames()
    for name in ("a.mp4", "b.mp4"):
        write_mp4(tmp_path / name, frames, 30.0)
    data = (tmp_path / "a.mp4").read_bytes()
    boxes = top_level_boxes(data)
    assert boxes.index("moov") < boxes.index("mdat")
    assert data == (tmp_path / "b.mp4").read_bytes()


def test_odd_sides_lose_their_last_line(tmp_path):
    write_mp4(tmp_path / "odd.mp4", smooth_frames(3, 33, 47), 10.0)
    with av.open(str(tmp_path / "odd.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width) == (32, 46)
