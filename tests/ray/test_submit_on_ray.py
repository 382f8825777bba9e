"""Jobs on a real cluster of two raylets with token authentication, submitted from processes of their own."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ray_cluster import ROOT, RayCluster
from tests.small_run import SMALL_SETTINGS

PLANTED = f"planted-{secrets.token_hex(8)}"
CONFIG = SMALL_SETTINGS + """
[run]
root = "FOLDER"
name = "batch"

[ray.submit]
secrets = ["RAY_AUTH_TOKEN_PATH"]

[[performers]]
kind = "rendered"
name = "dancer"
performer_seed = 1_000_011
num_frames = 20

[preprocess]
size = 128
fit_steps = 10

[finetune]
max_steps = 2
lr = 1e-4
decoder = { steps = 2 }

[joint]
steps = 200
refresh_interval = 100
warm_up_steps = 20
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    cluster = RayCluster()
    try:
        cluster.start_head()
        cluster.add_worker()
        yield cluster
    finally:
        cluster.close()


def _dpscale(cluster: RayCluster, *words: str, before: str = "pass", **changed: str | None) -> subprocess.CompletedProcess[str]:
    code = f"import sys; {before}; from jobs.cli import main; sys.exit(main())"
    environment = cluster.environment(**{"MLFLOW_TRACKING_PASSWORD": PLANTED, "AWS_SECRET_ACCESS_KEY": PLANTED, **changed})
    return subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)


def _config(folder: Path) -> Path:
    folder.mkdir()
    path = folder / "run.toml"
    path.write_text(CONFIG.replace("FOLDER", str(folder)))
    return path


def _submitted(cluster: RayCluster, *words: str) -> str:
    done = _dpscale(cluster, *words, "--no-wait")
    assert done.returncode == 0, done.stdout + done.stderr
    return next(line.removeprefix("job ") for line in done.stdout.splitlines() if line.startswith("job "))


def _wait_for(condition: Callable[[], object], seconds: float = 180) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "did not happen"
        time.sleep(0.1)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"RAY_AUTH_MODE": None, "RAY_AUTH_TOKEN_PATH": None}, "the cluster asks for a token and none was sent: set RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_TOKEN_PATH": None, "RAY_AUTH_TOKEN": "not-the-right-one"}, "the cluster does not know the token that was sent"),
    ],
)
def test_a_client_without_the_token_is_refused(cluster: RayCluster, changed: dict[str, str | None], message: str):
    done = _dpscale(cluster, "jobs", "list", "--address", cluster.url, **changed)
    assert done.returncode == 2
    assert message in done.stderr
    assert "not-the-right-one" not in done.stderr


@pytest.mark.timeout(300)
def test_another_ray_gets_both_versions_and_the_remedy(cluster: RayCluster):
    done = _dpscale(cluster, "demo", "--submit", cluster.url, before="import ray; ray.__version__ = '2.59.1'")
    assert done.returncode == 2
    assert "Ray: 2.59 here, 2.60 in the cluster. Submit from an environment with ray==2.60.*" in done.stderr


@pytest.mark.timeout(300)
def test_a_password_in_the_settings_is_not_sent(cluster: RayCluster):
    done = _dpscale(cluster, "demo", "--submit", cluster.url, "--set", f"tracking.uri=postgresql://mlflow:{PLANTED}@db/mlflow")
    assert done.returncode == 2
    assert "MLFLOW_TRACKING_PASSWORD" in done.stderr
    assert PLANTED not in done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_a_node_that_does_not_see_the_run_folder_is_named(cluster: RayCluster, tmp_path: Path):
    config = _config(tmp_path / "private")
    hidden = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs "$0" && exec "$@"', str(config.parent))
    if subprocess.run([*hidden, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    blind = cluster.add_worker(prefix=hidden)
    done = _dpscale(cluster, "personalize", str(config), "--submit", cluster.url)
    cluster.kill_worker(blind)
    assert done.returncode == 2, done.stdout
    assert f"{config.parent / 'batch'}: not seen by " in done.stdout
    assert "storage that every node mounts at the same path" in done.stdout
