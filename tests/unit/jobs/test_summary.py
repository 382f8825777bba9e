"""summary.json from metrics files, times and failures."""

from __future__ import annotations

import subprocess
from pathlib import Path

from dpscale.config.load import load
from dpscale.config.schema import Config
from dpscale.data.checkpoint import write_json
from dpscale.data.layout import RunLayout
from jobs.settings import CONFIGS
from jobs.stage_times import add_seconds
from jobs.summary import commit, earlier_failures, summary


def _demo(tmp_path: Path) -> tuple[Config, RunLayout]:
    config = load(CONFIGS / "demo.toml", [f"run.root='{tmp_path}'"])
    return config, RunLayout.of(config)


def test_own_videos_and_other_drives_have_their_places(tmp_path: Path):
    config, layout = _demo(tmp_path)
    for video in config.planned_videos():
        write_json(layout.metrics(video), {"methods": {"ivr_opt": {"warp_error": 0.1}}, "has_truth": video.drive == "self"})
    add_seconds(layout, "preprocess", 1.25)
    add_seconds(layout, "finetune", 2.0)
    found = summary(config, layout, {"x": "preprocess: no"})
    assert found["performers"] == {
        "man": {"methods": {"ivr_opt": {"warp_error": 0.1}}, "drives": {"dance": {"ivr_opt": {"warp_error": 0.1}}}},
        "rendered": {"methods": {"ivr_opt": {"warp_error": 0.1}}, "drives": {}},
    }
    assert found["stages_s"] == {"preprocess": 1.25, "finetune": 2.0}
    assert found["total_s"] == 3.25
    assert found["failed"] == {"x": "preprocess: no"}


def test_an_empty_run_has_a_summary(tmp_path: Path):
    config, layout = _demo(tmp_path)
    assert summary(config, layout, {})["performers"] == {}
    assert earlier_failures(layout, []) == {}


def test_failures_of_other_stages_stay_until_those_run_again(tmp_path: Path):
    _, layout = _demo(tmp_path)
    write_json(layout.summary, {"failed": {"a": "preprocess: no person", "b": "finetune: diverged"}})
    assert earlier_failures(layout, ["finetune"]) == {"a": "preprocess: no person"}
    assert earlier_failures(layout, []) == {"a": "preprocess: no person", "b": "finetune: diverged"}


def test_the_commit_is_that_of_the_checkout():
    root = Path(__file__).parents[3]
    head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert head.returncode != 0 or commit() == head.stdout.strip()
