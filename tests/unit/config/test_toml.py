from __future__ import annotations

from pathlib import Path

import pytest

from dpscale.config.load import check, load
from dpscale.config.toml import to_toml

CONFIGS = sorted((Path(__file__).parents[3] / "jobs" / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_what_is_written_is_read_back_equal(path: Path, tmp_path: Path) -> None:
    config = load(path)
    (tmp_path / "again.toml").write_text(to_toml(config), encoding="utf-8")
    assert load(tmp_path / "again.toml") == config


def test_names_of_any_kind_survive(tmp_path: Path) -> None:
    config = check({"performers": [{"kind": "video", "name": "ann", "path": 'a "b"\\ \u821e \t\x7f.mp4'}], "tracking": {"experiment": "#1\n"}})
    (tmp_path / "again.toml").write_text(to_toml(config), encoding="utf-8")
    assert load(tmp_path / "again.toml") == config
