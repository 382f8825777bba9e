"""Jobs on a real cluster of two raylets with token authentication, submitted from processes of their own."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
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
steps = 400
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


@pytest.fixture(scope="module")
def undisturbed(cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a submitted job that nobody disturbed."""
    config = _config(tmp_path_factory.mktemp("whole") / "runs")
    done = _dpscale(cluster, "personalize", str(config), "--submit", cluster.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "run folder seen by all 2 nodes" in done.stdout
    return config.parent / "batch"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_killed_during_refreshes_changes_no_bit(cluster: RayCluster, undisturbed: Path, tmp_path: Path):
    config = _config(tmp_path / "runs")
    out = config.parent / "batch"
    job = _submitted(cluster, "personalize", str(config), "--submit", cluster.url)
    assert f"job {job} is at work there" in _dpscale(cluster, "personalize", str(config), "--submit", cluster.url).stderr
    _wait_for(lambda: (out / "joint" / "dancer--self" / "refreshes" / "00001").exists())
    cluster.kill_worker(cluster.workers[0])
    cluster.add_worker()
    _finished(cluster, job, out, undisturbed)
    _no_trace(PLANTED, cluster.folder, tmp_path)
    _no_trace(cluster.token, *cluster.folder.glob("ray*"), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_that_is_stopped_in_each_stage_resumes(cluster: RayCluster, undisturbed: Path, tmp_path: Path):
    config = _config(tmp_path / "runs")
    out = config.parent / "batch"
    begun = {
        "preprocess": lambda: list((out / "steps").glob("*")),
        "finetune": lambda: list((out / "shards").rglob("_COMPLETE.json")),
        "optimize": lambda: (out / "joint" / "dancer--self" / "refreshes" / "00001").exists(),
        "evaluate": lambda: (out / "joint" / "dancer--self" / "result" / "frames.npz").exists(),
    }
    job = _submitted(cluster, "personalize", str(config), "--submit", cluster.url)
    for stage, has_begun in begun.items():
        _wait_for(has_begun)
        stopped = _dpscale(cluster, "jobs", "stop", job, "--address", cluster.url)
        assert f"{job}: stopped. Resume with: dpscale jobs retry {job}" in stopped.stdout, f"{stage}\n{stopped.stdout}{_log(cluster, job)}"
        assert not (out / "summary.json").exists(), stage
        job = _submitted(cluster, "jobs", "retry", job, "--address", cluster.url)
    log = _finished(cluster, job, out, undisturbed)
    assert log.count("1 already there") == 3, "what the stopped jobs had finished"
    listed = _dpscale(cluster, "jobs", "list", "--address", cluster.url, COLUMNS="200").stdout
    assert listed.count("STOPPED") == len(begun)


def _log(cluster: RayCluster, job: str) -> str:
    return _dpscale(cluster, "jobs", "logs", job, "--address", cluster.url).stdout


def _finished(cluster: RayCluster, job: str, out: Path, undisturbed: Path) -> str:
    """The log of a job that ends well, with the same video as the undisturbed one."""
    followed = _dpscale(cluster, "jobs", "logs", job, "--address", cluster.url)
    assert followed.returncode == 0, followed.stdout + followed.stderr
    assert json.loads((out / "summary.json").read_text())["failed"] == {}
    frames, wanted = _frames(out), _frames(undisturbed)
    assert frames.keys() == wanted.keys()
    for name in wanted:
        assert np.array_equal(frames[name], wanted[name]), name
    return followed.stdout


def _frames(out: Path) -> dict[str, np.ndarray]:
    with np.load(out / "joint" / "dancer--self" / "result" / "frames.npz") as arrays:
        return dict(arrays)


def _no_trace(secret: str, *folders: Path) -> None:
    """Neither in Ray's logs and packages nor in the run folders."""
    holding = [path for folder in folders for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert holding == []
