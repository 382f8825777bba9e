"""TOML and --set to a Config, and the comparison of two."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpscale.config.load import ConfigError, check, differences, load, merged, parse_override, resolved
from dpscale.config.schema import Config

MAN = "{ kind = 'pose2sim', name = 'man' }"


def test_nothing_given_is_the_defaults():
    assert load(None) == Config()


def test_file_and_overrides_cover_each_other(tmp_path: Path):
    path = tmp_path / "c.toml"
    path.write_text("[finetune]\nlr = 1e-4\nepochs = 3\n[finetune.decoder]\nsteps = 7\n")
    config = load(path, ["finetune.lr=2e-5", "finetune.decoder.lr=0.5", "run.name=a.b", "diffusion.pose_kinds=['iuv']"])
    assert (config.finetune.lr, config.finetune.epochs) == (2e-5, 3)
    assert (config.finetune.decoder.steps, config.finetune.decoder.lr) == (7, 0.5)
    assert config.run.name == "a.b"
    assert config.diffusion.pose_kinds == ("iuv",)


def test_the_config_of_a_run_folder_is_read_like_a_file_of_settings(tmp_path: Path):
    path, config = tmp_path / "config.json", load(None, ["finetune.lr=2e-5", f"performers=[{MAN}]"])
    path.write_text(config.model_dump_json())
    assert load(path) == config
    assert load(path, ["finetune.lr=1e-4"]).finetune.lr == 1e-4
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json: is not JSON"):
        load(path)


def test_overrides_reach_into_lists():
    assert load(None, [f"performers=[{MAN}]", "performers.0.camera=cam03"]).performers[0].camera == "cam03"


def test_added_items_lengthen_lists(tmp_path: Path):
    path = tmp_path / "c.toml"
    path.write_text(f"performers = [{MAN}]")
    config = load(path, add={"performers": [{"kind": "video", "name": "a", "path": "x"}], "drives": [{"kind": "motion", "name": "d"}]})
    assert [p.name for p in config.performers] == ["man", "a"]
    assert [d.name for d in config.drives] == ["self", "d"]


@pytest.mark.parametrize(
    ("text", "nested"),
    [
        ("a=1", {"a": 1}),
        ("a.b = 1e-5", {"a": {"b": 1e-5}}),
        ("a=true", {"a": True}),
        ("a=[1, 2]", {"a": [1, 2]}),
        ("a=clips/x.mp4", {"a": "clips/x.mp4"}),
        ("a='1'", {"a": "1"}),
        ("a=b=c", {"a": "b=c"}),
        ("a=", {"a": ""}),
    ],
)
def test_values_are_toml_or_text(text: str, nested: dict):
    assert parse_override(text) == nested


@pytest.mark.parametrize("text", ["a", "=1", "a..b=1", ".a=1"])
def test_an_override_without_a_key_is_refused(text: str):
    with pytest.raises(ConfigError, match="write key=value"):
        parse_override(text)


@given(st.text(max_size=30))
def test_any_text_may_be_a_value(value: str):
    assert isinstance(parse_override(f"a={value}"), dict)


def test_merged_leaves_its_arguments_alone():
    below = {"a": {"b": 1}}
    assert merged(below, {"a": {"c": 2}}) == {"a": {"b": 1, "c": 2}}
    assert below == {"a": {"b": 1}}


@pytest.mark.parametrize(("content", "message"), [(None, "there is no such config file"), ("a = ", "is not TOML"), ("\xff", "is not TOML")])
def test_a_file_that_is_no_config_is_named(tmp_path: Path, content: str | None, message: str):
    path = tmp_path / "c.toml"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=message) as raised:
        load(path)
    assert str(path) in str(raised.value)


def test_a_folder_is_no_config(tmp_path: Path):
    with pytest.raises(ConfigError, match="is a folder"):
        load(tmp_path)


def test_resolved_goes_through_json_and_back():
    config = load(Path(__file__).parents[3] / "jobs" / "configs" / "demo.toml")
    assert check(resolved(config)) == config


def _changed(*overrides: str) -> dict:
    return differences(resolved(load(None, [f"performers=[{MAN}]"])), resolved(load(None, [f"performers=[{MAN}]", *overrides])))


def test_what_changes_results_is_listed_with_both_values():
    assert _changed("joint.steps=5", "finetune.decoder.lr=0.5") == {"joint.steps": (10_000, 5), "finetune.decoder.lr": (5e-5, 0.5)}
    assert _changed("performers.0.camera=cam01") == {"performers.man.camera": ("cam02", "cam01")}
    assert _changed("ray.torch_threads=2").keys() == {"ray.torch_threads"}


def test_how_the_work_is_carried_out_may_change():
    assert not _changed("ray.num_cpus=9", "scheduler.field_workers=1", "tracking.kind=none", "finetune.max_concurrent=3", "run.root=elsewhere")


def test_a_batch_may_grow_and_shrink():
    more = "performers=[{ kind = 'pose2sim', name = 'man' }, { kind = 'pose2sim', name = 'b', camera = 'cam01' }]"
    assert not _changed(more, "drives=[{ kind = 'motion', name = 'dance' }]", "videos=[{ performer = 'man', drive = 'dance' }]")
    assert not _changed("performers=[]")


def test_another_kind_of_performer_under_the_same_name_is_a_change():
    assert "performers.man.kind" in _changed("performers=[{ kind = 'video', name = 'man', path = 'x.mp4' }]")
