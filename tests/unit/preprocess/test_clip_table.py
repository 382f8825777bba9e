"""Manifests: what is read is what was written, and every bad cell is named by row and column."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpscale.config.load import check
from dpscale.data.types import InputError
from dpscale.preprocess.clip_table import ClipRow, free_name, read_clip_table, to_performers, write_clip_table


def _csv(folder: Path, text: str, **options) -> Path:
    path = folder / "clips.csv"
    path.write_text(text, **options)
    return path


def _parquet(folder: Path, columns: dict[str, list]) -> Path:
    pq.write_table(pa.table(columns), folder / "clips.parquet")
    return folder / "clips.parquet"


def test_rows_of_a_csv_file(tmp_path: Path):
    path = _csv(tmp_path, 'performer,path,start,end,split\nann,ann/a.mp4,,,\nann,"ann/b, c.mp4",2.5,40,train\nbob,../bob.mov,,12.5,TEST\n')
    assert read_clip_table(path) == (
        ClipRow("ann", tmp_path / "ann" / "a.mp4"),
        ClipRow("ann", tmp_path / "ann" / "b, c.mp4", 2.5, 40.0, "train"),
        ClipRow("bob", tmp_path / ".." / "bob.mov", None, 12.5, "test"),
    )


def test_columns_come_in_any_order_and_case_and_some_may_be_missing(tmp_path: Path):
    assert read_clip_table(_csv(tmp_path, " Path ,END_s,Performer\na.mp4,3,ann\n")) == (ClipRow("ann", tmp_path / "a.mp4", None, 3.0),)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_files_as_spreadsheets_save_them(tmp_path: Path, separator: str):
    text = "performer,path,split\r\nann,a.mp4,test\r\n,,\r\n\r\nbob,b.mp4,\r\n".replace(",", separator)
    rows = read_clip_table(_csv(tmp_path, text, encoding="utf-8-sig", newline=""))
    assert rows == (ClipRow("ann", tmp_path / "a.mp4", split="test"), ClipRow("bob", tmp_path / "b.mp4"))


def test_an_absolute_path_stays(tmp_path: Path):
    assert read_clip_table(_csv(tmp_path, "performer,path\nann,/data/a.mp4\n"))[0].path == Path("/data/a.mp4")


def test_a_parquet_file_of_another_program(tmp_path: Path):
    folder = tmp_path / "performer=x"  # as a partition of a larger table would be called
    folder.mkdir()
    columns = {"Performer": [1, 2], "path": ["a.mp4", "b.mp4"], "start": [float("nan"), 1.0], "end": pa.array([None, 4], pa.int64())}
    assert read_clip_table(_parquet(folder, columns)) == (ClipRow("1", folder / "a.mp4"), ClipRow("2", folder / "b.mp4", 1.0, 4.0))


def test_what_is_written_is_read(tmp_path: Path):
    rows = (ClipRow("ann", tmp_path / "in" / "ä b.mp4", 0.1, 7.25, "train"), ClipRow("bob-2", Path("/elsewhere/b.mp4"), None, None, "auto"))
    write_clip_table(tmp_path / "in" / "clips.parquet", rows)
    assert read_clip_table(tmp_path / "in" / "clips.parquet") == rows
    table = pq.read_table(tmp_path / "in" / "clips.parquet")
    assert table.column_names == ["performer", "path", "start", "end", "split"]
    assert table["path"].to_pylist() == ["ä b.mp4", "/elsewhere/b.mp4"]


def test_a_folder_with_its_table_may_move(tmp_path: Path):
    write_clip_table(tmp_path / "old" / "clips.parquet", [ClipRow("ann", tmp_path / "old" / "ann" / "a.mp4")])
    (tmp_path / "old").rename(tmp_path / "new")
    assert read_clip_table(tmp_path / "new" / "clips.parquet")[0].path == tmp_path / "new" / "ann" / "a.mp4"


def test_a_table_without_rows_is_empty(tmp_path: Path):
    assert read_clip_table(_csv(tmp_path, "performer,path\n")) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("performer,path,speaker\n", r"clips.csv: unknown column 'speaker': allowed are performer, path, start, end, split"),
        ("path,split\n", "column performer is missing: allowed are performer, path, start, end, split, of which performer and path must be there"),
        ("performer,path,end,end_s\n", "column end is there 2 times: keep one"),
        ("", "column performer, path is missing"),
        ("performer,path\nann,a.mp4\nBob,b.mp4\n", r"clips.csv: row 2 \(line 3\), column performer: the name 'Bob' may hold lower case"),
        ("performer,path\n\n\nann,\n", r"row 1 \(line 4\), column path: '' names no file"),
        ("performer,path\n,a.mp4\n", r"row 1 \(line 2\), column performer: the name ''"),
        ("performer,path,start\nann,a.mp4,1:30\n", "row 1 .*, column start: '1:30' is no time in the clip: give seconds from 0 on, for example 2.5"),
        ("performer;path;start\nann;a.mp4;1,5\n", "column start: '1,5' is no time"),
        ("performer,path,start\nann,a.mp4,-1\n", "column start: '-1' is no time"),
        ("performer,path,end\nann,a.mp4,inf\n", "column end: 'inf' is no time"),
        ("performer,path,start,end\nann,a.mp4,4,4\n", "column end: 4 s is not after start = 4 s: give a later end"),
        ("performer,path,end\nann,a.mp4,0\n", "column end: 0 s is not after start = 0 s"),
        ("performer,path,split\nann,a.mp4,val\n", "column split: 'val' is unknown: allowed are train, test, auto"),
        ("performer,path\nann,a, b.mp4\n", "row 1 .*, column 3: 'b.mp4' stands behind the last column: quote a path"),
        ("performer,path,start\nann,a.mp4,\nann,x/../a.mp4,0\n", r"row 2 \(line 3\), column performer, path, start: the same as row 1 \(line 2\)"),
        ('performer,path\nann,"a.mp4\n', "clips.csv: not a CSV file in UTF-8 .*: save it as one"),
    ],
)
def test_a_bad_csv_file_names_row_column_and_remedy(tmp_path: Path, text: str, message: str):
    with pytest.raises(InputError, match=message):
        read_clip_table(_csv(tmp_path, text))


def test_every_bad_row_has_its_line_up_to_ten(tmp_path: Path):
    with pytest.raises(InputError) as caught:
        read_clip_table(_csv(tmp_path, "performer,path\n" + "Ann,a.mp4\n" * 12))
    lines = str(caught.value).splitlines()
    assert [("row 1 " in lines[0], "row 10 " in lines[9]), lines[10:]] == [(True, True), ["... and 2 more rows"]]


def test_one_clip_may_be_cut_into_several_rows(tmp_path: Path):
    path = _csv(tmp_path, "performer,path,start,end,split\nann,a.mp4,0,10,train\nann,a.mp4,10,,test\nbob,a.mp4,0,10,train\n")
    assert len(read_clip_table(path)) == 3


def test_a_bad_parquet_row_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"clips.parquet: row 2, column start: 'soon' is no time"):
        read_clip_table(_parquet(tmp_path, {"performer": ["ann", "bob"], "path": ["a", "b"], "start": ["1", "soon"]}))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("clips.xlsx", b"PK", "suffix '.xlsx' is no table of clips: give a .csv or .parquet file"),
        ("clips.parquet", b"PAR1", "clips.parquet: not a Parquet file that can be read"),
        ("clips.parquet", b"", "clips.parquet: not a Parquet file that can be read"),
        ("clips.csv", "performer,path\nann,ä.mp4\n".encode("utf-16"), "clips.csv: not a CSV file in UTF-8"),
        ("clips.csv", b"performer,path\nann,a\0.mp4\n", "clips.csv: "),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_clip_table(tmp_path / name)


def test_a_missing_table_and_a_folder_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"none.csv: no such file: give a .csv or .parquet table"):
        read_clip_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match="is a folder: give a"):
        read_clip_table(tmp_path)


def test_each_row_becomes_a_performer_with_a_name_of_its_own():
    rows = [ClipRow("ann", Path("/a.mp4")), ClipRow("ann", Path("/b.mp4")), ClipRow("ann-2", Path("/c.mp4")), ClipRow("ann", Path("/d.mp4"))]
    entries = to_performers(rows)
    assert [entry["name"] for entry in entries] == ["ann", "ann-3", "ann-2", "ann-4"]
    assert entries[0] == {"kind": "video", "name": "ann", "path": "/a.mp4"}
    assert [str(performer.path) for performer in check({"performers": entries}).performers] == ["/a.mp4", "/b.mp4", "/c.mp4", "/d.mp4"]


def test_limits_and_split_go_along_where_they_say_something():
    assert to_performers([ClipRow("ann", Path("/a.mp4"), 0.0, 2.5, "test")])[0] == {
        "kind": "video", "name": "ann", "path": "/a.mp4", "start_s": 0.0, "end_s": 2.5, "split": "test",
    }  # fmt: skip


def test_a_numbered_name_is_no_longer_than_a_name_may_be():
    assert free_name("a" * 64, {"a" * 64}) == "a" * 62 + "-2"
    assert free_name("ann", {"bob"}) == "ann"
