from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from dpscale.tracking import spool as spool_module
from dpscale.tracking.spool import Position, Spool, has_pending


def numbers(events):
    return [event["n"] for event in events]


def test_events_come_back_in_order_until_they_are_delivered(tmp_path):
    spool = Spool(tmp_path)
    spool.append([{"n": 0}, {"n": 1}])
    spool.append([{"n": 2}])
    events, after = spool.read(2)
    assert numbers(events) == [0, 1]
    assert numbers(spool.read(2)[0]) == [0, 1]
    spool.delivered(after)
    events, after = spool.read(10)
    assert numbers(events) == [2]
    spool.delivered(after)
    assert spool.read(10) == ([], after)
    assert spool.pending_bytes == 0


def test_a_later_process_goes_on_where_the_last_one_was(tmp_path):
    first = Spool(tmp_path)
    first.append([{"n": n} for n in range(5)])
    first.delivered(first.read(2)[1])
    second = Spool(tmp_path)
    second.append([{"n": 5}])
    assert numbers(second.read(10)[0]) == [2, 3, 4, 5]
    assert second.pending_bytes == sum(len(json.dumps({"n": n})) + 1 for n in range(2, 6))
    assert has_pending(tmp_path)


def test_delivered_files_are_removed_and_the_rest_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 100)
    spool = Spool(tmp_path)
    for n in range(100):
        spool.append([{"n": n}])
    files = len(list(tmp_path.glob("*.jsonl")))
    assert files > 5
    seen = []
    while spool.pending_bytes:
        events, after = spool.read(7)
        seen += numbers(events)
        spool.delivered(after)
    assert seen == list(range(100))
    assert len(list(tmp_path.glob("*.jsonl"))) == 1


def test_a_torn_line_is_never_read_nor_written_on(tmp_path):
    spool = Spool(tmp_path)
    spool.append([{"n": 0}])
    (path,) = tmp_path.glob("*.jsonl")
    with path.open("a") as file:
        file.write('{"n": 1, "torn')
    again = Spool(tmp_path)
    again.append([{"n": 2}])
    assert numbers(again.read(10)[0]) == [0, 2]


def test_unreadable_lines_are_left_out(tmp_path, caplog):
    spool = Spool(tmp_path)
    spool.append([{"n": 0}])
    (path,) = tmp_path.glob("*.jsonl")
    with path.open("ab") as file:
        file.write(b"\0\0\0\0\n" + json.dumps({"n": 1}).encode() + b"\n")
    assert numbers(Spool(tmp_path).read(10)[0]) == [0, 1]
    assert "unreadable line" in caplog.text


def test_what_a_crash_of_the_machine_cut_off_behind_the_delivered_part_hides_nothing_new(tmp_path):
    spool = Spool(tmp_path)
    spool.append([{"n": n} for n in range(10)])
    spool.delivered(spool.read(10)[1])
    (path,) = tmp_path.glob("*.jsonl")
    os.truncate(path, 20)
    again = Spool(tmp_path)
    again.append([{"n": 10}])
    assert numbers(again.read(10)[0]) == [10]


def test_infinite_and_missing_numbers_survive(tmp_path):
    spool = Spool(tmp_path)
    spool.append([{"values": [float("nan"), float("inf"), 0.1]}])
    values = spool.read(1)[0][0]["values"]
    assert repr(values) == "[nan, inf, 0.1]"


def test_what_was_appended_survives_sigkill(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from dpscale.tracking.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1])); spool.append([{'n': n} for n in range(1000)]); spool.delivered(spool.read(300)[1])\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert numbers(Spool(tmp_path).read(5000)[0]) == list(range(300, 1000))


def test_looking_for_what_waits_makes_no_folder(tmp_path):
    assert not has_pending(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Spool(tmp_path / "file")


def test_positions_are_ordered():
    assert Position(1, 900) < Position(2, 0) < Position(2, 1)
