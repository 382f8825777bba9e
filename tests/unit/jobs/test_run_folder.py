"""A run folder belongs to one set of settings and one driver."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpscale.config.load import ConfigError, load
from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError
from jobs.run_folder import claimed


def _config(tmp_path: Path, *overrides: str) -> Config:
    return load(None, [f"run.root='{tmp_path}'", *overrides])


def test_the_resolved_config_is_written(tmp_path: Path):
    config = _config(tmp_path, "joint.steps=5")
    with claimed(config, RunLayout.of(config)):
        assert json.loads(RunLayout.of(config).resolved_config.read_text())["joint"]["steps"] == 5


def test_other_settings_are_refused_with_keys_and_remedy(tmp_path: Path):
    config, layout = _config(tmp_path), RunLayout.of(_config(tmp_path))
    with claimed(config, layout):
        pass
    with pytest.raises(ConfigError) as raised, claimed(_config(tmp_path, "joint.steps=5", "field.lr=0.1"), layout):
        pass
    message = str(raised.value)
    assert "joint.steps: was 10000, is now 5" in message
    assert "field.lr: was 0.001, is now 0.1" in message
    assert "--out DIR" in message
    assert json.loads(layout.resolved_config.read_text())["joint"]["steps"] == 10_000


def test_harmless_changes_are_taken_over(tmp_path: Path):
    config, layout = _config(tmp_path), RunLayout.of(_config(tmp_path))
    with claimed(config, layout):
        pass
    with claimed(_config(tmp_path, "ray.num_cpus=3"), layout):
        assert json.loads(layout.resolved_config.read_text())["ray"]["num_cpus"] == 3


def test_two_drivers_do_not_share_a_folder(tmp_path: Path):
    config, layout = _config(tmp_path), RunLayout.of(_config(tmp_path))
    with claimed(config, layout), pytest.raises(InputError, match="another dpscale is at work"), claimed(config, layout):
        pass
    with claimed(config, layout):
        pass


def test_half_written_leftovers_are_removed(tmp_path: Path):
    config, layout = _config(tmp_path), RunLayout.of(_config(tmp_path))
    (layout.root / "shards" / ".tmp-1-clip").mkdir(parents=True)
    (layout.root / "shards" / ".tmp-1-clip" / "data").touch()
    (layout.root / ".tmp-2-report.html").touch()
    (layout.root / "shards" / "kept").touch()
    with claimed(config, layout):
        assert [path.name for path in (layout.root / "shards").iterdir()] == ["kept"]
        assert not list(layout.root.glob(".tmp-*"))
