"""Performers that are held out never train, and renderers do not outlive the process that wanted their pictures."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dpscale.body.rendered import HELD_OUT_SEED
from dpscale.config.load import load
from dpscale.config.schema import PretrainConfig
from dpscale.config.sources import RenderedPerformer
from dpscale.finetune.training_set import training_seeds


def test_held_out_performers_never_train():
    train, measured = training_seeds(PretrainConfig(num_performers=500, held_out_performers=16))
    assert (len(train), len(measured)) == (500, 16)
    assert set(train).isdisjoint(measured)
    assert max(*train, *measured) < HELD_OUT_SEED
    with pytest.raises(ValueError, match="never trained on"):
        training_seeds(PretrainConfig(num_performers=HELD_OUT_SEED - 1, held_out_performers=2))


@pytest.mark.parametrize("name", ["demo", "base", "tiny", "sd21", "sd15"])
def test_shipped_configs_use_held_out_performers_only(name):
    config = load(Path(__file__).parents[3] / "jobs" / "configs" / f"{name}.toml")
    assert all(p.performer_seed >= HELD_OUT_SEED for p in config.performers if isinstance(p, RenderedPerformer))
    training_seeds(config.pretrain)


PARENT = """
import os, sys, time
from multiprocessing import get_context
from concurrent.futures import ProcessPoolExecutor
from dpscale.finetune.training_set import end_with

if __name__ == "__main__":
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=end_with, initargs=(os.getpid(),)) as pool:
        job = pool.submit(time.sleep, 600)
        print(next(iter(pool._processes)), flush=True)
        job.result()
"""


def test_renderers_end_with_a_killed_parent(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    command, environment = [sys.executable, str(tmp_path / "parent.py")], os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    renderer = psutil.Process(int(parent.stdout.readline()))
    time.sleep(5)  # it imports
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    renderer.wait(timeout=60)
    assert not renderer.is_running()
