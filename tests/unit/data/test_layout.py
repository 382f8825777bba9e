"""Addresses of artefacts stay inside the run folder, whatever the names are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpscale.config.schema import Config, RunConfig
from dpscale.config.sources import VideoConfig
from dpscale.data.layout import RunLayout, safe_name


def test_a_run_lies_below_its_root(tmp_path: Path):
    layout = RunLayout.of(Config(run=RunConfig(name="Demo.1", root=tmp_path)))
    assert layout.root == tmp_path.resolve() / "Demo.1"
    assert layout.mlflow_db == tmp_path.resolve() / "mlflow.db"


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/a", ".hidden", "a\n", "x" * 101])
def test_a_run_name_is_no_path(name: str):
    with pytest.raises(ValueError, match=r"run|name|pattern"):
        RunConfig(name=name)


@given(st.text(max_size=70))
def test_only_safe_names_become_folders(name: str):
    try:
        assert safe_name(name) == name
    except ValueError:
        return
    assert Path(name).name == name
    assert not name.startswith((".", "-"))


def test_each_artefact_has_its_own_address(tmp_path: Path):
    layout, video = RunLayout(tmp_path), VideoConfig(performer="a", drive="b")
    paths = [
        layout.resolved_config, layout.summary, layout.report, layout.source_video("a"), layout.truth("a"), layout.shard("a", "main"),
        layout.shard("a", "b"), layout.finetune("a"), layout.joint(video), layout.videos(video), layout.metrics(video),
    ]  # fmt: skip
    assert len(set(paths)) == len(paths)
    assert all(path.is_relative_to(tmp_path) for path in paths)


def test_two_videos_never_share_a_name():
    one, other = VideoConfig(performer="a", drive="b-c"), VideoConfig(performer="a-b", drive="c")
    assert RunLayout.video_name(one) != RunLayout.video_name(other)
