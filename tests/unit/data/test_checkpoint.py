"""What is there is whole, whatever was killed while it was written."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from dpscale.data.checkpoint import MARKER, commit_folder, marker_of, write_atomically, write_json


class Interrupted(Exception):
    pass


def _fail(path: Path) -> None:
    (path / "half" if path.is_dir() else path).write_text("half")
    raise Interrupted


def test_a_file_is_replaced_whole(tmp_path: Path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"b": [1, 2]})
    write_json(path, {"b": [3]})
    assert json.loads(path.read_text()) == {"b": [3]}
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(Interrupted):
        write_atomically(path, _fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_keeps_the_suffix(tmp_path: Path):
    seen: list[str] = []
    write_atomically(tmp_path / "a.npz", lambda path: (seen.append(path.suffix), path.write_text("x")))
    assert seen == [".npz"]


def test_a_folder_is_complete_or_absent(tmp_path: Path):
    folder = tmp_path / "shard"
    assert marker_of(folder) is None
    commit_folder(folder, lambda path: (path / "data").write_text("one"), {"version": 1})
    assert marker_of(folder) == {"version": 1}
    with pytest.raises(Interrupted):
        commit_folder(folder, _fail, {"version": 2})
    assert marker_of(folder) == {"version": 1}
    assert sorted(path.name for path in folder.iterdir()) == [MARKER, "data"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_replaces_its_predecessor_entirely(tmp_path: Path):
    folder = tmp_path / "shard"
    (folder / "left").mkdir(parents=True)
    commit_folder(folder, lambda path: (path / "data").write_text("two"), {})
    assert sorted(path.name for path in folder.iterdir()) == [MARKER, "data"]


def test_a_file_is_no_complete_folder(tmp_path: Path):
    (tmp_path / "shard").write_text("")
    assert marker_of(tmp_path / "shard") is None


def _write_and_die(folder: Path) -> None:
    def write(path: Path) -> None:
        (path / "data").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    commit_folder(folder, write, {"whole": True})


def test_a_killed_writer_leaves_nothing_that_counts(tmp_path: Path):
    process = multiprocessing.get_context("fork").Process(target=_write_and_die, args=(tmp_path / "shard",))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert marker_of(tmp_path / "shard") is None
    commit_folder(tmp_path / "shard", lambda path: (path / "data").write_text("whole"), {"whole": True})
    assert marker_of(tmp_path / "shard") == {"whole": True}
