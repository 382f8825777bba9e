"""Lengths of videos and of folders of pictures, whole and in part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpscale.data.types import InputError
from dpscale.preprocess.clip_length import clip_seconds
from dpscale.preprocess.clip_table import ClipRow
from tests.unit.preprocess.videos import pattern, write_sound, write_video


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(("start", "end", "expected"), [(None, None, 2.0), (0.5, None, 1.5), (None, 1.2, 1.2), (0.5, 1.2, 0.7), (0.5, 9.0, 1.5)])
def test_seconds_of_a_video(tmp_path: Path, suffix: str, start: float | None, end: float | None, expected: float):
    path = write_video(tmp_path / f"a{suffix}", pattern(20, 16, 16), fps=10)
    assert clip_seconds(ClipRow("ann", path, start, end)) == pytest.approx(expected, abs=0.01)


def test_seconds_of_pictures(tmp_path: Path):
    for n in range(15):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"{n}.png")
    assert clip_seconds(ClipRow("ann", tmp_path)) == 0.5


def test_a_stream_without_a_length_has_none(tmp_path: Path):
    path = write_video(tmp_path / "a.h264", pattern(20, 16, 16), codec="libx264")
    assert clip_seconds(ClipRow("ann", path)) is None
    assert clip_seconds(ClipRow("ann", path, 0.25, 1.0)) == 0.75


def test_unusable_clips_name_the_file_and_the_remedy(tmp_path: Path):
    (tmp_path / "text.mp4").write_text("no video at all\n" * 100)
    with pytest.raises(InputError, match=r"text.mp4: not a video that can be read .*copy it again or re-encode it"):
        clip_seconds(ClipRow("ann", tmp_path / "text.mp4"))
    with pytest.raises(InputError, match="has sound but no picture"):
        clip_seconds(ClipRow("ann", write_sound(tmp_path / "sound.mp4")))
    with pytest.raises(InputError, match=r"a.mp4: column start is 3 s, the clip ends at 2 s: give an earlier start"):
        clip_seconds(ClipRow("ann", write_video(tmp_path / "a.mp4", pattern(20, 16, 16), fps=10), 3.0))
