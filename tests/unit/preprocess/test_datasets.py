"""Data sets as people lay them out: who is in them, and why the rest is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpscale.data.types import InputError
from dpscale.preprocess.clip_table import ClipRow, write_clip_table
from dpscale.preprocess.datasets import Ingested, companions, list_clips, recognised


def _file(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _pictures(folder: Path, num: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(num):
        Image.fromarray(np.full((8, 8, 3), n, np.uint8)).save(folder / f"{n + 1:04d}.png")
    return folder


def _tiktok(root: Path, *numbers: str) -> Path:
    for number in numbers:
        for kind in ("images", "masks", "densepose"):
            _pictures(root / number / kind)
    return root


def _shown(found: Ingested, root: Path) -> tuple[list[tuple[str, str]], dict[str, str]]:
    rows = [(row.performer, str(row.path.relative_to(root))) for row in found.rows]
    return rows, {str(item.path.relative_to(root)): item.reason for item in found.ignored}


def test_a_flat_folder_has_a_performer_a_file(tmp_path: Path):
    for name in ("Big Dance (2).mp4", "anna.MOV", "clip10.webm", "clip9.webm"):
        _file(tmp_path / name)
    found = list_clips(tmp_path)
    rows = [("big-dance-2", "Big Dance (2).mp4"), ("anna", "anna.MOV"), ("clip9", "clip9.webm"), ("clip10", "clip10.webm")]
    assert (_shown(found, tmp_path), found.layout) == ((rows, {}), "clips")
    assert all(row.split == "auto" and row.path.is_absolute() and row.start_s is None for row in found.rows)


def test_sub_folders_name_performers_at_any_depth(tmp_path: Path):
    for name in ("Ann/day 1/a.mp4", "Ann/b.mp4", "bob/x.mkv", "carl.mp4"):
        _file(tmp_path / name)
    found = list_clips(tmp_path)
    assert found.layout == "clips"
    assert _shown(found, tmp_path)[0] == [("carl", "carl.mp4"), ("ann", "Ann/b.mp4"), ("ann", "Ann/day 1/a.mp4"), ("bob", "bob/x.mkv")]


def test_what_is_no_clip_is_listed_with_the_reason(tmp_path: Path):
    for name in ("ann/a.mp4", "ann/.b.mp4", "ann/notes.txt", "ann/README", ".cache/c.mp4", "__MACOSX/._a.mp4"):
        _file(tmp_path / name)
    _file(tmp_path / "ann" / "empty.mp4", b"")
    (tmp_path / "ann" / "lost.mp4").symlink_to(tmp_path / "nowhere")
    _file(tmp_path / "\u821e.mp4")
    rows, ignored = _shown(list_clips(tmp_path), tmp_path)
    assert rows == [("ann", "ann/a.mp4")]
    assert ignored == {
        ".cache": "hidden",
        "__MACOSX/._a.mp4": "hidden",
        "ann/.b.mp4": "hidden",
        "ann/notes.txt": "suffix '.txt' is not one of a video",
        "ann/README": "suffix '' is not one of a video",
        "ann/empty.mp4": "empty (zero bytes)",
        "ann/lost.mp4": "no such file",
        "\u821e.mp4": "'\u821e' gives no name: rename it with letters a to z or digits",
    }


def test_different_names_stay_different_performers(tmp_path: Path):
    for name in ("Ann.mp4", "ann.mp4", "\u738b-1.mp4", "\u674e-1.mp4", "bob.mp4", "bob.mov", "bob/x.mp4", "a" * 70 + ".mp4", "a" * 71 + ".mp4"):
        _file(tmp_path / name)
    names = {row.path.name: row.performer for row in list_clips(tmp_path).rows}
    assert names["Ann.mp4"] != names["ann.mp4"]
    assert names["\u738b-1.mp4"] != names["\u674e-1.mp4"]
    assert names["a" * 70 + ".mp4"] != names["a" * 71 + ".mp4"]
    assert {names[name] for name in ("bob.mp4", "bob.mov", "x.mp4")} == {"bob"}
    assert all(len(name) <= 64 for name in names.values())


def test_links_are_followed_and_circles_are_not(tmp_path: Path):
    _file(tmp_path / "elsewhere" / "a.mp4")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "ann").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "set")
    rows, ignored = _shown(list_clips(tmp_path / "set"), tmp_path / "set")
    assert rows == [("ann", "ann/a.mp4")]
    assert ignored == {"ann/up": "the same folder as one that is listed already"}


def test_the_tiktok_dataset(tmp_path: Path):
    _tiktok(tmp_path, "00001", "00002", "00010")
    found = list_clips(tmp_path)
    rows = [("00001", "00001/images"), ("00002", "00002/images"), ("00010", "00010/images")]
    assert (_shown(found, tmp_path), found.layout) == ((rows, {}), "tiktok")
    beside = companions(found.rows[0].path)
    assert (beside.masks, beside.densepose) == (tmp_path / "00001" / "masks", tmp_path / "00001" / "densepose")


@pytest.mark.parametrize("nested", ["TikTok_dataset", "TikTok_dataset/TikTok_dataset"])
def test_the_tiktok_dataset_as_archives_unpack_it(tmp_path: Path, nested: str):
    _tiktok(tmp_path / nested, "00001")
    _file(tmp_path / "TikTok_Raw_Videos" / "00001.mp4")
    assert [row.path for row in list_clips(tmp_path).rows] == [tmp_path / nested / "00001" / "images"]


def test_what_of_the_tiktok_dataset_is_left_out(tmp_path: Path):
    _tiktok(tmp_path, "00001", "00003")
    _pictures(tmp_path / "00002" / "masks")
    _pictures(tmp_path / "00004" / "images", 1)
    _file(_pictures(tmp_path / "00005" / "images") / "0002.png", b"")
    _file(tmp_path / "TikTok_dataset.txt")
    _file(tmp_path / ".DS_Store")
    rows, ignored = _shown(list_clips(tmp_path), tmp_path)
    assert [name for name, _ in rows] == ["00001", "00003"]
    assert ignored == {
        "00002": "no folder NNNNN/images of the TikTok layout",
        "00004/images": "number of pictures (.png, .jpg, .jpeg) is 1, at least 2 are needed: give a video file, or a folder of numbered pictures",
        "00005/images": "0002.png is empty (zero bytes)",
        "TikTok_dataset.txt": "no folder NNNNN/images of the TikTok layout",
        ".DS_Store": "hidden",
    }


def test_masks_and_densepose_may_be_missing(tmp_path: Path):
    clip = _pictures(tmp_path / "00001" / "images")
    (tmp_path / "00001" / "masks").mkdir()
    assert (companions(clip).masks, companions(clip).densepose) == (None, None)


def test_daily_videos(tmp_path: Path):
    names = [f"person_{person:02d}/clip_{clip:02d}.mp4" for person in range(1, 6) for clip in range(1, 4)]
    for name in names:
        _file(tmp_path / name)
    _file(tmp_path / "readme.md")
    found = list_clips(tmp_path)
    assert (found.layout, len(found.rows)) == ("daily", 15)
    assert _shown(found, tmp_path)[0] == [(name.split("/")[0], name) for name in names]
    assert _shown(found, tmp_path)[1] == {"readme.md": "suffix '.md' is not one of a video"}


def test_daily_asked_for_leaves_out_what_lies_elsewhere(tmp_path: Path):
    for name in ("ann/a.mp4", "ann/b.mp4", "ann/raw/c.mp4", "d.mp4"):
        _file(tmp_path / name)
    assert recognised(tmp_path) == "clips"
    assert len(list_clips(tmp_path).rows) == 4
    rows, ignored = _shown(list_clips(tmp_path, "daily"), tmp_path)
    assert rows == [("ann", "ann/a.mp4"), ("ann", "ann/b.mp4")]
    assert ignored.keys() == {"ann/raw/c.mp4", "d.mp4"}


def test_a_table_of_clips(tmp_path: Path):
    rows = (ClipRow("ann", _file(tmp_path / "a.mp4"), 1.0, 2.0, "test"), ClipRow("bob", _pictures(tmp_path / "bob")))
    lost = (ClipRow("carl", tmp_path / "lost.mp4"), ClipRow("dan", _file(tmp_path / "d.mp4", b"")), ClipRow("eve", _pictures(tmp_path / "eve", 1)))
    write_clip_table(tmp_path / "clips.parquet", rows + lost)
    found = list_clips(tmp_path / "clips.parquet")
    assert (found.rows, found.layout) == (rows, "manifest")
    assert [(item.path.name, item.reason.split(":")[0]) for item in found.ignored] == [
        ("lost.mp4", "no such file"),
        ("d.mp4", "empty (zero bytes)"),
        ("eve", "number of pictures (.png, .jpg, .jpeg) is 1, at least 2 are needed"),
    ]


def test_an_empty_folder_has_no_clips(tmp_path: Path):
    assert list_clips(tmp_path) == Ingested((), (), "clips")


@pytest.mark.parametrize(
    ("source", "layout", "message"),
    [
        ("nowhere", "auto", "nowhere: no such file or folder: check the path"),
        ("set/a.mp4", "auto", r"a.mp4: is one file: give a folder, or a .csv or .parquet table"),
        ("set", "tiktok", "set: has not the layout tiktok but clips"),
        ("set", "imagenet", "layout 'imagenet' is unknown: allowed are auto, manifest, tiktok, daily, clips"),
    ],
)
def test_what_cannot_be_listed_is_refused(tmp_path: Path, source: str, layout: str, message: str):
    _file(tmp_path / "set" / "a.mp4")
    with pytest.raises(InputError, match=message):
        list_clips(tmp_path / source, layout)


def test_a_name_that_is_no_text_is_left_out(tmp_path: Path):
    with open(bytes(tmp_path) + b"/\xff.mp4", "wb") as file:
        file.write(b"x")
    assert [item.reason for item in list_clips(tmp_path).ignored] == ["its path is not UTF-8: rename it"]
