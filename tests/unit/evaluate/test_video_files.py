from __future__ import annotations

import struct

import av
import numpy as np
import pytest
from PIL import Image

from dpscale.evaluate.video_files import contact_sheet, evenly, pose_pictures, write_mp4, write_png
from tests.unit.evaluate.clips import SIZE, moving_pose


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


def test_png_is_lossless(tmp_path):
    picture = smooth_frames(1)[0]
    write_png(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), picture)


def test_pose_pictures_colour_the_body_and_leave_the_rest_black():
    pose = moving_pose(3)
    pictures = pose_pictures(pose)
    assert pictures.shape == (3, SIZE, SIZE, 3)
    far = np.ones((SIZE, SIZE), bool)
    far[10:22] = False
    assert (pictures[:, far] == 0).all()
    assert (pictures[pose.iuv[..., 0] > 0].sum(-1) > 0).all()


def test_keypoints_that_are_not_numbers_are_not_drawn():
    pose = moving_pose(2)
    pose.keypoints[:] = np.nan
    pictures = pose_pictures(pose)
    assert (pictures[pose.iuv[..., 0] == 0] == 0).all()


def test_contact_sheet_shows_the_frames_that_it_names():
    red, green = np.zeros((20, 16, 16, 3), np.uint8), np.zeros((20, 16, 16, 3), np.uint8)
    red[..., 0] = np.arange(20)[:, None, None] * 10
    green[..., 1] = 200
    sheet = contact_sheet({"reference": green[:1], "made": red}, columns=4, cell_px=32)
    label = 72
    first, last = label + 4 + 16, label + 4 + 3 * 36 + 16
    assert sheet[20 + 16, first].tolist() == [0, 200, 0]
    assert sheet[20 + 16, last].tolist() == [255, 255, 255]  # the reference is there once
    assert sheet[20 + 36 + 16, last].tolist() == [190, 0, 0]


@pytest.mark.parametrize(("length", "count", "expected"), [(10, 4, [0, 3, 6, 9]), (3, 8, [0, 1, 2]), (1, 4, [0])])
def test_evenly_includes_both_ends(length, count, expected):
    assert evenly(length, count).tolist() == expected
