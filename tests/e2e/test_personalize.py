"""The whole job through the command line, in processes of its own: a good performer, two broken ones, kill -9, resume."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.small_run import SMALL_SETTINGS

CONFIG = """
videos = [{ performer = "dancer" }, { performer = "empty" }, { performer = "silent" }]
""" + SMALL_SETTINGS + """
[[performers]]
kind = "rendered"
name = "dancer"
performer_seed = 1_000_011
num_frames = 20

[[performers]]
kind = "video"
name = "empty"
path = "FOLDER/empty.mp4"

[[performers]]
kind = "video"
name = "silent"
path = "FOLDER/missing.mp4"

[preprocess]
size = 128

[finetune]
trainable = "all"
max_steps = 2
lr = 1e-4
decoder = { steps = 2 }

[joint]
steps = 600
refresh_interval = 200
warm_up_steps = 50
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "empty.mp4").write_bytes(b"")
    path = folder / "run.toml"
    path.write_text(CONFIG.replace("FOLDER", str(folder)))
    return path


def _start(config: Path, out: Path, job: str = "personalize", *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "import sys; from jobs.cli import main; sys.exit(main())", job, str(config), "--out", str(out), *more]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], env=os.environ | {"OMP_NUM_THREADS": "1"})


def _frames(out: Path) -> dict[str, np.ndarray]:
    with np.load(out / "joint" / "dancer--self" / "result" / "frames.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def uninterrupted(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "batch"
    assert _start(config, out).wait(timeout=600) == 1
    return out


@pytest.mark.timeout(900)
def test_bad_performers_are_named_and_the_good_one_finishes(uninterrupted: Path):
    summary = json.loads((uninterrupted / "summary.json").read_text())
    assert set(summary["failed"]) == {"empty", "silent"}
    assert "empty.mp4" in summary["failed"]["empty"]
    assert "missing.mp4" in summary["failed"]["silent"]
    methods = summary["performers"]["dancer"]["methods"]
    assert set(methods) == {"wo_opt", "ivr_opt", "mean_frame", "nearest_pose", "warped"}
    assert {"psnr", "psnr_body", "ssim", "l1", "mae", "warp_error", "keypoint_error_px"} <= set(methods["ivr_opt"])
    assert {"preprocess", "finetune", "optimize", "evaluate"} <= set(summary["stages_s"])
    frames = _frames(uninterrupted)
    assert frames["ivr_opt"].shape == frames["wo_opt"].shape == (4, 128, 128, 3)
    page = (uninterrupted / "report.html").read_text()
    assert "data:video/mp4;base64" in page


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_kill_9_of_the_driver_and_the_same_command_give_the_same_bits(config: Path, uninterrupted: Path):
    """Killed in the joint optimisation; earlier stages are killed in tests of their own."""
    out = uninterrupted.with_name("killed")
    for stage in ("shards", "finetune"):
        shutil.copytree(uninterrupted / stage, out / stage)
    driver = _start(config, out)
    first_refresh = out / "joint" / "dancer--self" / "refreshes" / "00001"
    while not first_refresh.exists() and driver.poll() is None:
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    assert driver.wait(timeout=60) == -signal.SIGKILL
    assert not (out / "summary.json").exists()
    assert _start(config, out).wait(timeout=600) == 1
    resumed, whole = _frames(out), _frames(uninterrupted)
    assert set(resumed) == set(whole)
    for name in whole:
        assert np.array_equal(resumed[name], whole[name]), name


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of its own, of 64 MiB: less than finetuning's checkpoint needs."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_a_full_disk_is_named_and_the_same_command_goes_on_once_there_is_room(config: Path, uninterrupted: Path, small_disk: Path):
    out, made = small_disk / "batch", Path("finetune") / "dancer"
    shutil.copytree(uninterrupted / "shards", out / "shards")
    assert _start(config, out, "finetune", "--set", "tracking.kind=none").wait(timeout=600) == 1
    failed = json.loads((out / "summary.json").read_text())["failed"]
    assert "No space left" in failed["dancer"] or "os error 28" in failed["dancer"]
    assert not list(out.rglob(".tmp-*")), "what did not fit leaves nothing behind"
    subprocess.run(["mount", "-o", "remount,size=2g", str(small_disk)], check=True)
    assert _start(config, out, "finetune", "--set", "tracking.kind=none").wait(timeout=600) == 1
    assert set(json.loads((out / "summary.json").read_text())["failed"]) == {"empty", "silent"}
    for name in ("denoiser.safetensors", "decoder.safetensors"):
        assert (out / made / name).read_bytes() == (uninterrupted / made / name).read_bytes(), name
