"""What of a checkout travels."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from jobs.working_tree import CHECKOUT, checkout, files

KEPT = ["dpscale/data/shards.py", "dpscale/model.safetensors", "jobs/cli.py", "new.py", "pyproject.toml"]
JUNK = [
    ".venv/lib/x.py", "runs/demo/config.json", "data/clip.bin", "dpscale/__pycache__/a.pyc", ".pytest_cache/x", "node_modules/x.js", "build/lib/x.py",
    "dpscale.egg-info/PKG-INFO", "clips/ann.mp4", "mlflow.db", "shards/frames.parquet",
]  # fmt: skip
SECRETS = [
    ".env",
    "deploy/.env.production",
    "cluster/tls.key",
    "cluster/tls.pem",
    ".aws/config",
    "ssh/id_ed25519",
    ".ray/auth_token",
    "credentials.json",
]


@pytest.fixture(params=["git", "no git"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    for name in [*KEPT, *JUNK, *SECRETS, *(["ignored.txt"] if request.param == "git" else [])]:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x")
    (tmp_path / "outside").write_text("of the tree")
    (tree / "link-out").symlink_to(tmp_path / "outside")
    (tree / "folder-out").symlink_to(tmp_path)
    if request.param == "git":
        (tree / ".gitignore").write_text("ignored.txt\n")
        subprocess.run(["git", "init", "-q", str(tree)], check=True)
        subprocess.run(["git", "-C", str(tree), "add", "--force", *KEPT[:3], *JUNK, *SECRETS], check=True)
    return tree


def test_junk_data_secrets_and_links_out_of_the_tree_stay_here(tree: Path):
    assert [name for name in files(tree) if name != ".gitignore"] == KEPT


def test_a_deleted_file_is_not_missed(tree: Path):
    (tree / "jobs" / "cli.py").unlink()
    assert "jobs/cli.py" not in files(tree)


def test_this_checkout_has_what_a_job_needs():
    assert checkout() == CHECKOUT
    assert {"jobs/submitted.py", "dpscale/diffusion/tiny/unet/diffusion_pytorch_model.safetensors", "jobs/configs/tiny.toml"} <= set(files(CHECKOUT))
