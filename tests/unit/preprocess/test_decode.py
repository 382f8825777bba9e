"""Decoding: frames as they are shown, and a message with a remedy for everything that is no usable video."""

import numpy as np
import pytest

from dpscale.data.types import InputError
from dpscale.preprocess.decode import probe, read_frames
from tests.unit.preprocess.videos import pattern, turn_clockwise, write_hdr, write_sound, write_video


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


def _damaged(path, at: float):
    """The index is whole, the pictures from `at` on are not."""
    write_video(path, pattern(20, 64, 64), codec="libx264")
    data = bytearray(path.read_bytes())
    start, length = int(len(data) * at), len(data) // 6
    data[start : start + length] = bytes(length)
    path.write_bytes(data)
    return path


def test_a_video_damaged_early_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"early.mp4: cannot be decoded past frame \d+ of 20 .*damaged or cut off; re-encode it"):
        list(read_frames(_damaged(tmp_path / "early.mp4", 0.2), 100))


def test_of_a_video_damaged_late_the_frames_before_are_used(tmp_path, caplog):
    path = _damaged(tmp_path / "late.mp4", 0.7)
    whole = list(read_frames(write_video(tmp_path / "whole.mp4", pattern(20, 64, 64), codec="libx264"), 100))
    kept = list(read_frames(path, 100))
    assert 10 <= len(kept) < 20
    sound = [n for n in range(len(kept)) if (kept[n] == whole[n]).all()]
    assert len(sound) >= len(kept) - 3  # the decoder patches a picture or two before it gives up
    assert f"after frame {len(kept)} of 20" in caplog.text


def test_a_cut_off_tail_loses_only_the_tail(tmp_path):
    path = write_video(tmp_path / "clip.mkv", pattern(40, 64, 64), codec="libx264", options={"g": "5"})
    whole = list(read_frames(path, 100))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.8)])
    kept = list(read_frames(path, 100))
    assert 25 <= len(kept) < 40
    np.testing.assert_array_equal(kept, whole[: len(kept)])


def test_a_variable_frame_rate_becomes_constant(tmp_path):
    frames = pattern(8, 32, 32)
    times = [0, 1, 2, 3, 6, 7, 8, 9]  # two are missing after 3
    path = write_video(tmp_path / "phone.mp4", frames, fps=10, times=times)
    info = probe(path)
    assert (info.fps, info.changes) == (10, ("resampled to 10 frames/s",))
    np.testing.assert_array_equal(list(read_frames(path, 100)), frames[[0, 1, 2, 3, 3, 3, 4, 5, 6, 7]])


def test_any_rate_may_be_asked_for(tmp_path):
    frames = pattern(48, 32, 32)
    path = write_video(tmp_path / "slow_motion.mp4", frames, fps=240)
    assert probe(path).fps == 240
    assert probe(path, fps=30).fps == 30
    shown = np.stack(list(read_frames(path, 100, fps=30)))
    assert len(shown) == 6
    index = [int(np.abs(frames.astype(int) - picture).sum((1, 2, 3)).argmin()) for picture in shown]
    assert set(np.diff(index)) == {8}
    assert probe(path, fps=240).changes == ()


def test_interlaced_pictures_are_woven_apart(tmp_path):
    frames = np.zeros((12, 64, 64, 3), np.uint8)
    for n, frame in enumerate(frames):  # a bar that moves between the two fields of a frame
        frame[0::2, 4 * n : 4 * n + 8] = 255
        frame[1::2, 4 * n + 2 : 4 * n + 10] = 255
    path = write_video(tmp_path / "tv.mkv", frames, codec="libx264", options={"x264-params": "tff=1:interlaced=1"})
    assert probe(path).changes == ("deinterlaced",)
    shown = np.stack(list(read_frames(path, 100))).astype(int)
    assert shown.shape == frames.shape

    def comb(x):
        return np.abs(x[:, 1:-1] - (x[:, :-2] + x[:, 2:]) / 2)[2:-2].mean()

    assert comb(shown) < 0.3 * comb(frames.astype(int))


@pytest.mark.parametrize("transfer", [16, 18], ids=["PQ", "HLG"])
def test_hdr_becomes_sdr_of_ordinary_brightness(tmp_path, transfer):
    grey = np.repeat(np.linspace(0, 255, 16).astype(np.uint8), 4)[None, None, :, None].repeat(4, 0).repeat(64, 1).repeat(3, 3)
    path = write_hdr(tmp_path / "phone.mkv", grey, transfer)
    assert probe(path).changes == ("HDR mapped to SDR",)
    shown = next(iter(read_frames(path, 1))).astype(int)
    ramp = shown[32, 2::4].mean(-1)
    assert np.all(np.diff(ramp) >= 0), "brighter stays brighter"
    assert ramp[0] < 20, "black is black"
    assert ramp[-1] > 180, "white is white"
    assert np.abs(shown - shown.mean(-1, keepdims=True)).max() <= 6, "grey stays grey"


def test_ten_bits_are_rounded_to_eight(tmp_path):
    frames = pattern(3, 32, 32)
    path = write_video(tmp_path / "camera.mkv", frames, codec="libx264", pix_fmt="yuv444p10le")
    assert np.abs(np.stack(list(read_frames(path, 3))).astype(int) - frames).mean() < 3


def test_transparency_stands_before_grey(tmp_path):
    frames = np.zeros((3, 32, 32, 4), np.uint8)
    frames[:, :16] = [200, 100, 50, 255]
    path = write_video(tmp_path / "cutout.mov", frames, codec="png", pix_fmt="rgba")
    shown = next(iter(read_frames(path, 1)))
    assert (shown[:16] == [200, 100, 50]).all()
    assert (shown[16:] == 128).all()


@pytest.mark.parametrize(("height", "width"), [(33, 47), (90, 30), (30, 90)])
def test_odd_sizes_and_both_formats(tmp_path, height, width):
    frames = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)
    path = write_video(tmp_path / "odd.mkv", frames, codec="ffv1", pix_fmt="bgr0")
    np.testing.assert_array_equal(np.stack(list(read_frames(path, 3))), frames)


def test_the_extension_does_not_matter(tmp_path):
    frames = pattern(3, 32, 32)
    path = write_video(tmp_path / "clip.mp4", frames).rename(tmp_path / "clip.avi")
    np.testing.assert_array_equal(np.stack(list(read_frames(path, 3))), frames)


def test_rare_key_frames_do_not_matter(tmp_path):
    frames = pattern(260, 16, 16)
    path = write_video(tmp_path / "clip.mp4", frames, options={"g": "250", "crf": "0"})
    np.testing.assert_array_equal(np.stack(list(read_frames(path, 300))), frames)


def test_rotation_survives_resampling(tmp_path):
    frames = pattern(8, 32, 48)
    path = write_video(tmp_path / "phone.mp4", frames, fps=20)
    turn_clockwise(path)
    shown = np.stack(list(read_frames(path, 3, fps=10)))
    assert shown.shape == (3, 48, 32, 3)
    assert all((np.rot90(frames, -1, axes=(1, 2)) == picture).all((1, 2, 3)).any() for picture in shown)


def test_a_playlist_does_not_read_another_file(tmp_path):
    """FFmpeg would follow it to any file that the worker may read, another tenant's clip among them."""
    other = tmp_path / "other"
    other.mkdir()
    secret = write_video(other / "secret.ts", pattern(30, 64, 64), codec="libx264")
    assert probe(secret).width == 64
    playlist = tmp_path / "clip.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:4,\n{secret}\n#EXT-X-ENDLIST\n")
    joined = tmp_path / "clip.mp4"
    joined.write_text("ffconcat version 1.0\nfile other/secret.ts\n")
    for path in (playlist, joined):
        with pytest.raises(InputError, match="not a video that can be read"):
            probe(path)
