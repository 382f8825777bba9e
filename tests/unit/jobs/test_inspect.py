"""`dpscale inspect` on the shards of a run folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from dpscale.data.shards import FILE_NAME, write_clip
from jobs.cli import main
from tests.small_performer import small_clip, small_model


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    for name in ("ann", "bob"):
        write_clip(tmp_path / "run" / "shards" / f"performer={name}" / "clip=main", small_clip(name, small_model()))
    return tmp_path / "run"


def test_sound_shards_are_listed_and_drawn(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(run_folder), "--out", str(tmp_path / "sheets")]) == 0
    shown = capsys.readouterr().out
    assert "2 of 2 shards are sound" in shown
    assert all(name in shown for name in ("ann", "bob", "32x32"))
    assert {path.name for path in (tmp_path / "sheets").iterdir()} == {"ann--main.png", "bob--main.png"}
    assert Image.open(tmp_path / "sheets" / "ann--main.png").width > 1000


def test_a_damaged_shard_ends_with_status_1_and_its_reason(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = run_folder / "shards" / "performer=bob" / "clip=main"
    (broken / FILE_NAME).write_bytes(b"PAR1")
    assert main(["inspect", str(run_folder)]) == 1
    shown = capsys.readouterr().out
    assert "1 of 2 shards are sound" in shown
    assert f"{broken}: its bytes are not those that were written" in shown
    assert (run_folder / "shards" / "performer=ann" / "clip=main" / "_contact_sheet.png").exists()


def test_a_folder_without_shards_ends_with_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path)]) == 2
    assert "holds no shards" in capsys.readouterr().err
