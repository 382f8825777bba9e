"""The zip of a submitted job."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from dpscale.data.types import InputError
from jobs import job_package
from jobs.job_package import write_package


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "jobs").mkdir(parents=True)
    (tree / "jobs" / "cli.py").write_text("print()")
    (tree / "run.sh").write_text("#!/bin/sh\n")
    (tree / "run.sh").chmod(0o700)
    (tree / "config.json").write_text("of the tree")
    return tree


def test_it_holds_the_tree_and_what_is_added(tree: Path, tmp_path: Path):
    assert write_package(tmp_path / "job.zip", tree, {"config.json": b"added"}, {}) == 3
    with zipfile.ZipFile(tmp_path / "job.zip") as package:
        assert sorted(package.namelist()) == ["config.json", "jobs/cli.py", "run.sh"]
        assert package.read("config.json") == b"added"
        assert package.getinfo("run.sh").external_attr >> 16 & 0o111, "stays executable"


def test_equal_content_gives_equal_bytes(tree: Path, tmp_path: Path):
    write_package(tmp_path / "one.zip", tree, {}, {})
    (tree / "jobs" / "cli.py").touch()
    write_package(tmp_path / "other.zip", tree, {}, {})
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "other.zip").read_bytes()


def test_an_installed_package_sends_settings_alone(tmp_path: Path):
    assert write_package(tmp_path / "job.zip", None, {"config.json": b"{}"}, {}) == 1


def test_a_file_with_a_secret_is_named(tree: Path, tmp_path: Path):
    (tree / "jobs" / "cli.py").write_text("password = 'pl4nted-v4lue'")
    with pytest.raises(InputError, match=r"jobs/cli.py holds the value of \$MY_PASSWORD"):
        write_package(tmp_path / "job.zip", tree, {}, {"MY_PASSWORD": "pl4nted-v4lue"})


def test_more_than_ray_takes_is_refused_with_the_largest(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(job_package, "MAX_BYTES", 2**20)
    (tree / "weights").mkdir()
    (tree / "weights" / "unet.bin").write_bytes(np.random.default_rng(0).bytes(2**20 + 1))
    with pytest.raises(InputError, match=r"more than the 1 MiB that Ray takes with a job; largest so far: weights/unet.bin \(1 MiB\).*gitignore"):
        write_package(tmp_path / "job.zip", tree, {}, {})
