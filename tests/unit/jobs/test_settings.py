"""Names and paths from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpscale.config.load import ConfigError
from dpscale.config.schema import Config
from jobs.arguments import parser
from jobs.footage_names import drive, performer, safe_stem
from jobs.settings import config_of


def _config(*arguments: str) -> Config:
    return config_of(parser().parse_args(arguments))


def test_performers_and_drives_join_the_config():
    config = _config("personalize", "--performer", "ann=a.mp4", "--performer", "ben=b=c.mp4", "--drive", "x/Big Dance.mp4")
    assert [(p.name, p.path) for p in config.performers] == [("ann", Path("a.mp4").absolute()), ("ben", Path("b=c.mp4").absolute())]
    assert [d.name for d in config.drives] == ["self", "big-dance"]
    assert len(config.planned_videos()) == 4


def test_out_is_the_run_folder(tmp_path: Path):
    run = _config("demo", "--out", str(tmp_path / "Out_1.x"), "--set", "run.name=other").run
    assert (run.root, run.name) == (tmp_path, "Out_1.x")


def test_the_demo_has_its_own_config():
    assert _config("demo").run.name == "demo"
    assert _config("synth").diffusion.preset == "tiny"


@pytest.mark.parametrize(
    ("stem", "name"),
    [("dance", "dance"), ("Big Dance (2)", "big-dance-2"), ("../../etc", "etc"), ("_x_", "x"), ("\u821e", ""), ("a" * 80, "a" * 64), ("a.b", "a-b")],
)
def test_names_from_files_are_safe(stem: str, name: str):
    assert safe_stem(Path(f"{stem}.mp4")) == name


def test_a_drive_may_be_named():
    assert drive("hop=x y.mp4")["name"] == "hop"


def test_a_file_whose_name_has_an_equals_sign_is_a_file(tmp_path: Path):
    path = tmp_path / "a=b.mp4"
    path.touch()
    assert drive(str(path)) == {"kind": "video", "name": "a-b", "path": str(path)}


def test_a_file_name_without_letters_asks_for_a_name():
    with pytest.raises(ConfigError, match="write NAME="):
        drive("\u821e.mp4")


@pytest.mark.parametrize("text", ["", "a", "a=", "=a.mp4"])
def test_a_performer_needs_name_and_file(text: str):
    with pytest.raises(ConfigError, match="write NAME=CLIP"):
        performer(text)
