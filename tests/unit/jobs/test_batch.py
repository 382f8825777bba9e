"""What fails leaves the batch, and takes along what depends on it."""

from __future__ import annotations

from pathlib import Path

from dpscale.config.load import load
from dpscale.data.layout import RunLayout
from dpscale.data.types import Outcome
from dpscale.tracking.tracker import NullTracker
from jobs.batch import Batch
from jobs.settings import CONFIGS


def _batch(tmp_path: Path) -> Batch:
    return Batch(load(CONFIGS / "demo.toml"), RunLayout(tmp_path), NullTracker())


def _videos(batch: Batch) -> list[str]:
    return [f"{v.performer}--{v.drive}" for v in batch.videos()]


def test_a_failed_performer_takes_its_videos_along(tmp_path: Path):
    batch = _batch(tmp_path)
    batch.record([Outcome("preprocess", "man", 1.0, error="no person was found"), Outcome("preprocess", "rendered", 1.0)])
    assert batch.failed == {"man": "preprocess: no person was found"}
    assert batch.performers() == ["rendered"]
    assert _videos(batch) == ["rendered--self"]


def test_a_failed_driving_clip_leaves_the_performer(tmp_path: Path):
    batch = _batch(tmp_path)
    batch.record([Outcome("preprocess", "man/dance", 1.0, error="unreadable")])
    assert batch.performers() == ["man", "rendered"]
    assert _videos(batch) == ["man--self", "rendered--self"]


def test_a_failed_video_is_not_evaluated(tmp_path: Path):
    batch = _batch(tmp_path)
    batch.record([Outcome("optimize", "man--self", 1.0, error="diverged")])
    assert _videos(batch) == ["rendered--self", "man--dance"]
