"""Weights from a file that processes share: the same bits, and one copy in memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from dpscale.data.types import InputError
from dpscale.diffusion.aligned import ALIGNMENT
from dpscale.diffusion.mapped_weights import map_weights
from tests.unit.diffusion.models import CHANNELS, LATENT, random_conditions, small_model

MIB = 2**20


def prediction(model) -> torch.Tensor:
    noisy = torch.randn(1, CHANNELS, 3, LATENT, LATENT, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.denoiser(noisy, torch.tensor([300]), random_conditions(1, 3))


def parts(model) -> tuple[nn.Module, ...]:
    return model.denoiser, model.autoencoder, model.image_encoder


def test_a_mapped_model_gives_the_same_bits(tmp_path: Path) -> None:
    plain, mapped = small_model(), small_model()
    path = map_weights(parts(mapped), tmp_path)
    tensors = [t for part in parts(mapped) for t in (*part.parameters(), *part.buffers())]
    assert all(t.data_ptr() % ALIGNMENT == 0 for t in tensors)
    assert path.stat().st_size >= sum(t.nbytes for t in tensors)
    assert str(path) in Path("/proc/self/maps").read_text()
    assert torch.equal(prediction(plain), prediction(mapped))
    latents = torch.randn(2, CHANNELS, LATENT, LATENT, generator=torch.Generator().manual_seed(2))
    assert torch.equal(plain.autoencoder.decode(latents), mapped.autoencoder.decode(latents))


def test_what_a_process_writes_is_its_own(tmp_path: Path) -> None:
    one, other = small_model(), small_model()
    path = map_weights(parts(one), tmp_path)
    content, before = path.read_bytes(), prediction(other)
    with torch.no_grad():
        one.denoiser.unet.conv_out.bias.add_(1)
    assert map_weights(parts(other), tmp_path) == path
    assert torch.equal(prediction(other), before)
    assert path.read_bytes() == content


def test_another_model_has_another_file_and_a_damaged_one_is_written_again(tmp_path: Path) -> None:
    path = map_weights(parts(small_model(0)), tmp_path)
    assert map_weights(parts(small_model(1)), tmp_path) != path
    content = path.read_bytes()
    for damaged in (content[:-ALIGNMENT], content[:1000] + b"x" + content[1001:]):
        path.unlink()
        path.write_bytes(damaged)
        model = small_model(0)
        map_weights(parts(model), tmp_path)
        assert path.read_bytes() == content
        assert torch.equal(prediction(model), prediction(small_model(0)))


def test_files_that_nobody_uses_any_more_go(tmp_path: Path) -> None:
    old, recent = (map_weights(parts(small_model(seed)), tmp_path) for seed in (0, 1))
    long_ago = time.time() - 8 * 86400
    os.utime(old, (long_ago, long_ago))
    map_weights(parts(small_model(2)), tmp_path)
    assert not old.exists()
    assert recent.exists()


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = map_weights([nn.Linear(4, 4)])
    assert path.parent.parent == tmp_path
    path.parent.chmod(0o777)
    with pytest.raises(InputError, match="you alone may write to"):
        map_weights([nn.Linear(4, 4)])


HOLDS = """
import sys
from pathlib import Path
import torch
from dpscale.diffusion.mapped_weights import map_weights

torch.manual_seed(0)
module = torch.nn.Linear(4 * 2**20, 1, bias=False)
print(map_weights([module], Path(sys.argv[1])), flush=True)
module.weight.sum()
print("read", flush=True)
sys.stdin.read()
"""
"""Maps 16 MiB, reads all of it and waits."""


def test_two_processes_hold_one_copy(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        files = [process.stdout.readline().strip() for process in processes]
        assert [process.stdout.readline() for process in processes] == ["read\n", "read\n"]
        shares = [memory_of(process.pid, files[0]) for process in processes]
    finally:
        for process in processes:
            process.communicate()
    assert files[0] == files[1]
    for share in shares:
        assert share["Rss"] >= 16 * MIB
        assert share["Pss"] <= 0.55 * share["Rss"], "each counts half of every page"
        assert share["Private_Clean"] + share["Private_Dirty"] <= MIB


def memory_of(pid: int, file: str) -> dict[str, int]:
    """Bytes of a process's mapping of a file, by the names of /proc/PID/smaps."""
    blocks = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path(f"/proc/{pid}/smaps").read_text(), flags=re.M)
    block = next(block for block in blocks if block.partition("\n")[0].endswith(file))
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", block, re.M)}
