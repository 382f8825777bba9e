from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dpscale.preprocess.quarantine import Quarantined, read_quarantine, still_quarantined, update_quarantine

ANN = Quarantined.now("ann", "key-1", "ann.mp4: no person was found", "Traceback ...", input_at_fault=True)
BOB = Quarantined.now("bob", "key-2", "OSError: disk full", "Traceback ...", input_at_fault=False)


def test_what_fails_is_added_and_what_finishes_leaves(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.parquet"
    assert read_quarantine(path) == {}
    update_quarantine(path, [ANN, BOB], [])
    assert read_quarantine(path) == {"ann": ANN, "bob": BOB}
    again = replace(ANN, reason="ann.mp4: is empty")
    update_quarantine(path, [again], ["bob"])
    assert read_quarantine(path) == {"ann": again}
    update_quarantine(path, [], ["ann"])
    assert not path.exists()


def test_plain_pyarrow_reads_it(tmp_path: Path) -> None:
    update_quarantine(tmp_path / "q.parquet", [BOB, ANN], [])
    table = pq.read_table(tmp_path / "q.parquet")
    assert table["name"].to_pylist() == ["ann", "bob"]
    assert table["time"][0].as_py() == ANN.time


@pytest.mark.parametrize(
    ("entry", "key", "expected"),
    [
        (ANN, "key-1", True),
        (ANN, "changed file or setting", False),
        (BOB, "key-2", False),  # not the input's fault
        (replace(ANN, key=""), "", False),  # a file that was not there may be there now
        (None, "key-1", False),
    ],
)
def test_only_bad_input_that_did_not_change_stays_out(entry: Quarantined | None, key: str, expected: bool) -> None:
    assert still_quarantined(entry, key) is expected
