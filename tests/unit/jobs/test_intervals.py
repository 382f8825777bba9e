"""Videos of a batch with predicted intervals, and what the command line says of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dpscale.config.load import check, resolved
from dpscale.config.schema import Config
from dpscale.config.toml import to_toml
from dpscale.data.layout import RunLayout
from dpscale.search.rule import Complexity, write_rule
from dpscale.tracking.tracker import NullTracker
from jobs.batch import Batch
from jobs.cli import main
from jobs.intervals import check_intervals, ready
from tests.ray.test_optimize_on_ray import make_config, write_inputs


def write_small_rule(path: Path) -> Path:
    """A rule that knows intervals from 3 to 5 of 10 steps."""
    known = [Complexity(2**n, 0.1 * n, 10.0 * n) for n in (1, 2, 3)]
    write_rule(path, dict(zip("abc", known, strict=True)), {"a": 3, "b": 4, "c": 5}, steps=10)
    return path


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Two performers who are preprocessed, two who are not."""
    rule = write_small_rule(tmp_path / "rule.json")
    plain = resolved(make_config(tmp_path, tmp_path / "base", "run"))
    plain["joint"] |= {"refresh_interval": "auto", "refresh_interval_rule": str(rule)}
    found = check(plain)
    write_inputs(RunLayout.of(found))
    return found


def test_a_batch_gets_numbers(config: Config) -> None:
    now = ready(Batch(config, RunLayout.of(config), NullTracker()))
    assert all(video.refresh_interval in (3, 4, 5) for video in now.videos)
    assert [(outcome.name, outcome.ok) for outcome in now.failed] == [("cid--self", False), ("dan--self", False)]
    assert "holds no finished shard" in (now.failed[0].error or "")


def test_a_batch_of_one_interval_is_left_alone(config: Config) -> None:
    same = config.model_copy(update={"joint": config.joint.model_copy(update={"refresh_interval": 5})})
    batch = Batch(same, RunLayout.of(same), NullTracker())
    now = ready(batch)
    assert (now.videos, now.failed) == (batch.videos(), [])
    check_intervals(same)


def test_a_dry_run_tells_the_intervals(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.toml").write_text(to_toml(config))
    assert main(["personalize", str(tmp_path / "run.toml"), "--dry-run"]) == 0
    shown = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if line.startswith("  optimize")}
    interval = ready(Batch(config, RunLayout.of(config), NullTracker())).videos[0].refresh_interval
    assert shown["ann--self"].endswith(f"to do     a refresh every {interval} steps")
    assert shown["dan--self"].endswith("its refresh interval follows from its pose")


@pytest.mark.parametrize("job", ["personalize", "optimize"])
def test_without_its_rule_nothing_begins(config: Config, tmp_path: Path, job: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.toml").write_text(to_toml(config))
    (tmp_path / "rule.json").unlink()
    shutil.rmtree(RunLayout.of(config).root)
    assert main([job, str(tmp_path / "run.toml")]) == 2
    assert "joint.refresh_interval_rule = " in capsys.readouterr().err
    assert not RunLayout.of(config).root.exists()
