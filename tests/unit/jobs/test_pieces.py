"""Which pieces a run has, and which are finished."""

from __future__ import annotations

from pathlib import Path

from dpscale.config.load import load
from dpscale.data.checkpoint import commit_folder, write_json
from dpscale.data.layout import RunLayout
from jobs.pieces import pieces
from jobs.settings import CONFIGS


def test_the_plan_follows_the_files(tmp_path: Path):
    config = load(CONFIGS / "demo.toml", [f"run.root='{tmp_path}'"])
    layout = RunLayout.of(config)
    plan = pieces(config, layout)
    assert [(p.stage, p.name) for p in plan[:5]] == [
        ("preprocess", "man/main"),
        ("preprocess", "man/dance"),
        ("preprocess", "rendered/main"),
        ("finetune", "man"),
        ("finetune", "rendered"),
    ]
    assert len(plan) == 11
    assert not any(p.finished for p in plan)
    video = config.planned_videos()[2]
    for folder in (layout.shard("man", "dance"), layout.finetune("man"), layout.joint(video) / "result"):
        commit_folder(folder, lambda path: None, {})
    write_json(layout.metrics(video), {})
    assert [p.name for p in pieces(config, layout) if p.finished] == ["man/dance", "man", "man--dance", "man--dance"]
