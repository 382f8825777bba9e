"""The plan against real steps: the kernel's count of resident memory, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dpscale.finetune.memory_plan import levels
from dpscale.finetune.training_phases import traced_training
from tests.measured_step import settings

FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}


def measured(*arguments: str) -> int:
    command = [sys.executable, "-m", "tests.measured_step", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], env=os.environ | FREED_AT_ONCE, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize(
    ("phase", "override"),
    [("denoiser", "finetune.precision=fp32"), ("denoiser", "finetune.gradient_checkpointing=true"), ("decoder", "finetune.decoder.batch_size=32")],
)
def test_the_peak_is_that_of_a_real_step(phase: str, override: str):
    config = settings([override])
    planned = levels(config, traced_training(config))[0].phases[phase].peak
    assert measured("torch", phase, override) == pytest.approx(planned, rel=0.15)


@pytest.mark.parametrize(("row", "offload"), [(1, "optimizer"), (2, "parameters")])
@pytest.mark.slow
def test_offloaded_states_are_those_of_a_real_step(row: int, offload: str):
    """On a CPU, device and host are one memory. The run writes no checkpoint."""
    override = f"finetune.offload={offload}"
    config = settings([override])
    traced = traced_training(config)
    need = levels(config, traced)[row].phases["denoiser"]
    trained = traced.denoiser.trained
    resident = need.peak + need.host - 3 * trained
    assert measured("deepspeed", "denoiser", override) == pytest.approx(resident, rel=0.15)
