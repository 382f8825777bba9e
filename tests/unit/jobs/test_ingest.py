"""`dpscale ingest` on small data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpscale.data.types import InputError
from dpscale.preprocess.clip_table import read_clip_table
from jobs.ingest import run
from tests.unit.preprocess.videos import pattern, write_video


def test_clips_are_listed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("ann/1.mp4", "ann/2.mp4", "bob [x]/1.mp4"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / "set" / name, pattern(20, 16, 16), fps=10)
    (tmp_path / "set" / "ann" / "[red]broken.mp4").write_text("no video\n" * 100)
    (tmp_path / "set" / "notes.txt").write_text("x")
    assert run(tmp_path / "set", tmp_path / "out dir") == 0
    rows = read_clip_table(tmp_path / "out dir" / "clips.parquet")
    assert [(row.performer, row.path.name, row.split) for row in rows] == [
        ("ann", "1.mp4", "auto"), ("ann", "2.mp4", "auto"), ("bob-x", "1.mp4", "auto"),
    ]  # fmt: skip
    shown = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if "│" in line]
    assert ["ann", "2", "4.0", "2 auto"] in lines
    assert ["bob-x", "1", "2.0", "1 auto"] in lines
    assert "layout daily" in shown
    assert ["1", "suffix '.txt' is not one of a video", "notes.txt"] in lines
    assert any(line[2].startswith("ann/[red]broken.mp4") and "not a video" in line[1] for line in lines if len(line) == 3)
    assert f"3 clips of 2 performers -> {tmp_path}/out dir/clips.parquet; 2 ignored" in shown
    assert f"next: dpscale preprocess --clips '{tmp_path}/out dir/clips.parquet'" in shown


def test_the_tiktok_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    images = tmp_path / "TikTok_dataset" / "00001" / "images"
    images.mkdir(parents=True)
    for n in range(60):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(images / f"{n:04d}.png")
    assert run(tmp_path, tmp_path, "tiktok") == 0
    assert [row.path for row in read_clip_table(tmp_path / "clips.parquet")] == [images]
    shown = capsys.readouterr().out
    assert "2.0" in shown
    assert "ignored │" not in shown


def test_splits_of_a_table_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_video(tmp_path / "a.mp4", pattern(20, 16, 16), fps=10)
    (tmp_path / "mine.csv").write_text("performer,path,start,end,split\nann,a.mp4,0,1,train\nann,a.mp4,1,,test\nann,a.mp4,5,,test\n")
    assert run(tmp_path / "mine.csv", tmp_path / "out") == 0
    assert [(row.start_s, row.end_s, row.split) for row in read_clip_table(tmp_path / "out" / "clips.parquet")] == [
        (0.0, 1.0, "train"), (1.0, None, "test"),
    ]  # fmt: skip
    shown = capsys.readouterr().out
    assert "1 train, 1 test" in shown
    assert "column start is 5 s, the clip ends at 2 s" in shown


def test_a_table_is_not_replaced_by_its_own_result(tmp_path: Path):
    write_video(tmp_path / "a.mp4", pattern(20, 16, 16))
    run(tmp_path, tmp_path)
    with pytest.raises(InputError, match="would be replaced by its own result"):
        run(tmp_path / "clips.parquet", tmp_path)


def test_without_a_clip_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(InputError, match="holds no clip that can be used"):
        run(tmp_path, tmp_path / "out")
    assert "empty (zero bytes)" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
