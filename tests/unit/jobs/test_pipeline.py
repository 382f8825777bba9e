"""What a job leaves behind when there is nothing to run on Ray; the whole pipeline is in tests/e2e."""

from __future__ import annotations

import json
from pathlib import Path

from dpscale.data.checkpoint import write_json
from dpscale.data.layout import RunLayout
from jobs.cli import main


def test_report_alone_needs_no_ray_and_keeps_earlier_failures(tmp_path: Path):
    layout = RunLayout(tmp_path / "run")
    assert main(["report", "--performer", "ann=ann.mp4", "--out", str(layout.root)]) == 0
    assert layout.report.exists()
    assert json.loads(layout.resolved_config.read_text())["performers"][0]["name"] == "ann"
    first = json.loads(layout.summary.read_text())
    assert first["failed"] == {}
    write_json(layout.summary, {**first, "failed": {"ann": "preprocess: no person was found"}})
    assert main(["report", "--performer", "ann=ann.mp4", "--out", str(layout.root)]) == 1
    assert json.loads(layout.summary.read_text())["failed"] == {"ann": "preprocess: no person was found"}
