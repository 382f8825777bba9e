"""Folders of pictures: frames as they are shown, in order, and a message that names the picture at fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpscale.data.types import InputError
from dpscale.preprocess.image_folder import folder_digest, pictures_in, probe_folder, read_folder
from tests.unit.preprocess.videos import pattern

ORIENTATION = 0x0112


def _write(folder: Path, frames: np.ndarray, names: list[str] | None = None, **options) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for n, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / (names[n] if names else f"{n + 1:04d}.png"), **options)
    return folder


def _frames(folder: Path, *arguments, **options) -> np.ndarray:
    return np.stack(list(read_folder(folder, *arguments, **options)))


def test_frames_are_exact_in_order_and_limited(tmp_path):
    frames = pattern(12, 32, 48)
    folder = _write(tmp_path / "images", frames, [f"frame_{n}.png" for n in range(12)])  # frame_10 follows frame_9
    info = probe_folder(folder, 25)
    assert (info.height, info.width, info.fps, info.changes) == (32, 48, 25, ())
    np.testing.assert_array_equal(_frames(folder, 100), frames)
    np.testing.assert_array_equal(_frames(folder, 4), frames[:4])


def test_the_rate_is_that_of_the_tiktok_dataset_unless_given(tmp_path):
    assert probe_folder(_write(tmp_path, pattern(2, 8, 8))).fps == 30


def test_other_files_are_passed_over(tmp_path):
    _write(tmp_path, pattern(3, 16, 16))
    (tmp_path / "._0001.png").write_bytes(b"Mac OS")
    (tmp_path / "Thumbs.db").touch()
    (tmp_path / "0009.png").mkdir()
    assert _frames(tmp_path, 10).shape == (3, 16, 16, 3)


def test_large_pictures_shrink_by_averaging_and_small_ones_stay(tmp_path):
    frames = pattern(2, 64, 128)
    halved = _frames(_write(tmp_path, frames), 2, longest_side=64)
    assert halved.shape == (2, 32, 64, 3)
    assert np.abs(halved - frames.reshape(2, 32, 2, 64, 2, 3).mean((2, 4))).max() <= 1
    assert _frames(tmp_path, 2, longest_side=500).shape == (2, 64, 128, 3)


def test_gaps_are_closed_and_reported(tmp_path, caplog):
    frames = pattern(6, 16, 16)
    folder = _write(tmp_path, frames, [f"{n:04d}.png" for n in (1, 2, 3, 7, 8, 10)])
    text = "4 missing pictures closed up, the first after 0003.png"
    assert probe_folder(folder).changes == (text,)
    np.testing.assert_array_equal(_frames(folder, 10), frames)
    assert f"{folder}: {text}" in caplog.text


def test_a_regular_step_is_no_gap_and_one_number_of_several_counts(tmp_path):
    assert pictures_in(_write(tmp_path / "a", pattern(4, 8, 8), [f"cam2_f{n:03d}_x4.png" for n in (0, 5, 10, 15)])).num_missing == 0
    gapped = pictures_in(_write(tmp_path / "b", pattern(4, 8, 8), [f"cam2_f{n:03d}_x4.png" for n in (0, 5, 10, 20)]))
    assert (gapped.num_missing, gapped.first_gap.name) == (1, "cam2_f010_x4.png")
    times = pictures_in(_write(tmp_path / "c", pattern(3, 8, 8), ["12-58.png", "12-59.png", "13-00.png"]))
    assert ([file.name for file in times.files], times.num_missing) == (["12-58.png", "12-59.png", "13-00.png"], 0)


def test_orientation_is_honoured(tmp_path):
    frames = pattern(2, 32, 48)
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # shown after a quarter turn clockwise
    folder = _write(tmp_path, frames, exif=exif)
    info = probe_folder(folder)
    assert (info.height, info.width) == (48, 32)
    np.testing.assert_array_equal(_frames(folder, 2), np.rot90(frames, -1, axes=(1, 2)))


def test_jpegs_are_read_and_suffixes_may_mix(tmp_path):
    frames = pattern(3, 32, 32)
    shown = _frames(_write(tmp_path, frames, ["1.JPG", "2.png", "3.jpeg"]), 3)
    np.testing.assert_array_equal(shown[1], frames[1])
    assert np.abs(shown.astype(int) - frames).mean() < 30


def test_grey_and_sixteen_bits_become_eight_bit_colour(tmp_path):
    deep = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    shown = _frames(_write(tmp_path, [deep, (deep // 257).astype(np.uint8), deep > 32767]), 3)
    np.testing.assert_array_equal(shown[:2], np.broadcast_to((deep // 257)[None, ..., None], (2, 16, 16, 3)))
    np.testing.assert_array_equal(shown[2], np.repeat((deep > 32767)[..., None] * 255, 3, -1))


def test_transparency_stands_before_grey(tmp_path):
    cutout = np.zeros((16, 16, 4), np.uint8)
    cutout[:8] = [200, 100, 50, 255]
    cutout[8:12] = [255, 255, 255, 128]
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.paste(1, (0, 0, 16, 8))
    Image.fromarray(cutout).save(tmp_path / "1.png")
    palette.save(tmp_path / "2.png", transparency=0)
    Image.fromarray(cutout[..., [0, 3]]).save(tmp_path / "3.png")
    colour, indexed, grey = _frames(tmp_path, 3)
    assert (colour[:8] == [200, 100, 50]).all()
    assert np.abs(colour[8:12].astype(int) - 192).max() <= 1
    assert (colour[12:] == 128).all()
    assert (indexed[:8] == [40, 50, 60]).all()
    assert (indexed[8:] == 128).all()
    assert (grey[:8] == 200).all()
    assert (grey[12:] == 128).all()


@pytest.mark.parametrize(("rate", "expected"), [(30, range(10)), (15, (0, 2, 4, 6, 8)), (10, (0, 3, 6, 9)), (20, (0, 1, 3, 4, 6, 7, 9))])
def test_any_lower_rate_shows_the_picture_that_is_on(tmp_path, rate, expected):
    frames = pattern(10, 16, 16)
    folder = _write(tmp_path, frames)
    np.testing.assert_array_equal(_frames(folder, 100, fps=30, resample_to=rate), frames[list(expected)])
    info = probe_folder(folder, 30, rate)
    assert (info.fps, info.changes) == (rate, () if rate == 30 else (f"resampled to {rate} frames/s",))


def test_a_higher_rate_repeats_pictures_as_separate_arrays(tmp_path):
    frames = pattern(3, 16, 16)
    shown = list(read_folder(_write(tmp_path, frames), 100, fps=10, resample_to=20))
    np.testing.assert_array_equal(shown, frames.repeat(2, 0))
    assert not np.shares_memory(shown[0], shown[1])
    assert len(list(read_folder(tmp_path, 5, fps=10, resample_to=20))) == 5


def _cut_off(folder, name="0002.png", part=0.6):
    _write(folder, np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8))
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(len(data) * part)])


def _empty(folder):
    _write(folder, pattern(3, 32, 32))
    (folder / "0002.png").write_bytes(b"")


def _text(folder):
    _write(folder, pattern(3, 32, 32))
    (folder / "0002.png").write_text("no picture\n" * 100)


def _flipped(folder):
    _write(folder, pattern(3, 32, 32))
    data = bytearray((folder / "0002.png").read_bytes())
    data[40:60] = bytes(20)
    (folder / "0002.png").write_bytes(data)


@pytest.mark.parametrize("spoil", [_cut_off, _empty, _text, _flipped])
def test_a_broken_picture_is_named(tmp_path, spoil):
    spoil(tmp_path)
    with pytest.raises(InputError, match=r"0002.png: not a picture that can be read .*: write it again"):
        list(read_folder(tmp_path, 10))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_wherever_a_picture_is_cut_off_it_is_named(tmp_path, suffix):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    _write(tmp_path, pattern(2, 16, 16), [f"1{suffix}", f"2{suffix}"], exif=exif)
    data = (tmp_path / f"2{suffix}").read_bytes()
    for length in range(0, len(data) - 14, 7):  # the last bytes of a PNG are its end mark, which PIL does not need
        (tmp_path / f"2{suffix}").write_bytes(data[:length])
        with pytest.raises(InputError, match=rf"2{suffix}: not a picture"):
            list(read_folder(tmp_path, 10))


def _none(folder):
    return folder / "nowhere"


def _one(folder):
    return _write(folder, pattern(1, 16, 16))


def _two_sizes(folder):
    return _write(folder, [np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16, 3), np.uint8), np.zeros((16, 24, 3), np.uint8)])


def _stranger(folder):
    return _write(folder, pattern(3, 16, 16), ["0001.png", "0002.png", "cover.png"])


def _two_cameras(folder):
    return _write(folder, pattern(2, 16, 16), ["left_1.png", "right_1.png"])


def _twins(folder):
    return _write(folder, pattern(2, 16, 16), ["01.png", "1.jpg"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_none, "nowhere: no such folder: give a folder of numbered pictures"),
        (_one, r"number of pictures \(.png, .jpg, .jpeg\) is 1, at least 2 are needed"),
        (_two_sizes, r"0003.png: is 24x16 px, 0001.png is 16x16: give pictures of one size"),
        (_stranger, r"cover.png: not numbered as 0001.png is: name the pictures alike"),
        (_two_cameras, r"right_1.png: not numbered as left_1.png is"),
        (_twins, r"(01.png|1.jpg): has the same number as (01.png|1.jpg): keep one picture a frame"),
    ],
)
def test_unusable_folders_name_the_file_and_the_remedy(tmp_path, make, message):
    with pytest.raises(InputError, match=message):
        list(read_folder(make(tmp_path), 10))


def test_the_digest_follows_names_and_content(tmp_path):
    frames = pattern(3, 16, 16)
    a, b = _write(tmp_path / "a", frames), _write(tmp_path / "b", frames)
    assert folder_digest(a) == folder_digest(b)
    (b / "0003.png").rename(b / "0004.png")
    renamed = folder_digest(b)
    _write(b, frames[:1, ::-1])
    assert len({folder_digest(a), renamed, folder_digest(b)}) == 3
