"""Relative paths before they travel."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpscale.config.load import check
from jobs.cluster_paths import with_absolute_paths


def test_paths_count_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    config = check(
        {
            "performers": [
                {"kind": "video", "name": "ann", "path": "ann.mp4", "openpose": "poses"},
                {"kind": "video", "name": "bob", "path": "/b.mp4"},
            ],
            "drives": [{"kind": "video", "name": "dance", "path": "dance.mp4"}],
            "diffusion": {"weights": "base", "parts": {"vae": "owner/name/vae", "unet": "base"}},
            "preprocess": {"store": "shards"},
            "finetune": {"nvme_path": "nvme"},
        }
    )
    moved = with_absolute_paths(config).model_dump(mode="json")
    assert moved["run"]["root"] == str(tmp_path / "runs")
    assert [(p["path"], p["openpose"]) for p in moved["performers"]] == [(str(tmp_path / "ann.mp4"), str(tmp_path / "poses")), ("/b.mp4", None)]
    assert moved["drives"][0]["path"] == str(tmp_path / "dance.mp4")
    assert moved["diffusion"]["weights"] == moved["diffusion"]["parts"]["unet"] == str(tmp_path / "base")
    assert moved["diffusion"]["parts"]["vae"] == "owner/name/vae", "a hub's name stays one"
    assert moved["preprocess"]["store"] == str(tmp_path / "shards")
    assert moved["finetune"]["nvme_path"] == str(tmp_path / "nvme")


def test_urls_and_absolute_paths_stay_and_nothing_else_changes():
    config = check({"run": {"root": "/shared/runs"}, "preprocess": {"store": "s3://bucket/shards"}, "joint": {"steps": 7}})
    assert with_absolute_paths(config) == config
