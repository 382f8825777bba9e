"""Decoding: frames as they are shown, and a message with a remedy for everything that is no usable video."""

import numpy as np
import pytest

from dpscale.data.types import InputError
from dpscale.preprocess.decode import probe, read_frames
from tests.unit.preprocess.videos import pattern, turn_clockwise, write_sound, write_video


def test_frames_are_exact_in_order_and_limited(tmp_path):
    frames = pattern(6, 32, 48)
    path = write_video(tmp_path / "clip.mp4", frames, fps=12.5)
    info = probe(path)
    assert (info.height, info.width, info.fps) == (32, 48, 12.5)
    np.testing.assert_array_equal(np.stack(list(read_frames(path, 100))), frames)
    np.testing.assert_array_equal(np.stack(list(read_frames(path, 4))), frames[:4])


def test_large_pictures_shrink_by_averaging_and_small_ones_stay(tmp_path):
    frames = pattern(2, 64, 128)
    path = write_video(tmp_path / "clip.mp4", frames)
    halved = np.stack(list(read_frames(path, 2, longest_side=64)))
    averaged = frames.reshape(2, 32, 2, 64, 2, 3).mean((2, 4))
    assert halved.shape == (2, 32, 64, 3)
    assert np.abs(halved - averaged).max() <= 3  # swscale computes with 14 bits
    assert next(iter(read_frames(path, 2, longest_side=500))).shape == (64, 128, 3)


def test_rotation_metadata_is_honoured(tmp_path):
    frames = pattern(3, 32, 48)
    path = write_video(tmp_path / "phone.mp4", frames)
    turn_clockwise(path)
    info = probe(path)
    assert (info.height, info.width) == (48, 32)
    np.testing.assert_array_equal(np.stack(list(read_frames(path, 3))), np.rot90(frames, -1, axes=(1, 2)))


def _missing(folder):
    return folder / "nowhere.mp4"


def _folder(folder):
    return folder


def _empty(folder):
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4"


def _text(folder):
    (folder / "text.mp4").write_text("no video at all\n" * 100)
    return folder / "text.mp4"


def _sound(folder):
    return write_sound(folder / "sound.mp4")


def _one_frame(folder):
    return write_video(folder / "one.mp4", pattern(1, 32, 32))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_missing, "nowhere.mp4: no such file: check the path"),
        (_folder, "is a folder: give one video file"),
        (_empty, r"empty.mp4: is empty \(zero bytes\): copy or download it again"),
        (_text, "text.mp4: not a video that can be read .*re-encode it"),
        (_sound, "sound.mp4: has sound but no picture: give a file with a video stream"),
        (_one_frame, "one.mp4: number of frames is 1, at least 2 are needed"),
    ],
)
def test_unusable_input_names_the_file_and_the_remedy(tmp_path, make, message):
    with pytest.raises(InputError, match=message):
        probe(make(tmp_path))


def test_a_damaged_file_is_refused_when_it_breaks(tmp_path):
    path = write_video(tmp_path / "clip.mp4", pattern(20, 64, 64), codec="libx264")
    data = bytearray(path.read_bytes())
    start, length = len(data) // 2, len(data) // 6
    data[start : start + length] = bytes(length)  # the index is whole, the pictures are not
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged or cut off"):
        list(read_frames(path, 100))
