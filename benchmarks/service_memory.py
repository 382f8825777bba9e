"""What does each further performer cost the refresh service in memory, and what a further service on the same node?

A fresh process with a service that answers one refresh (8 frames of 128 px, one step) of each of 1, then 8, then 32 performers, and the first
one's again, to the same bits; its memory is read from /proc at each of these counts. `whole`: finetuned temporal layers as they are;
`low-rank`: adapters of rank 16. The decoder is whole in both. Per further performer: growth of resident memory from the second count to
the last, beside the bytes of a performer's tensors. `bounded`: `whole` with a `scheduler.delta_cache_gib` that holds four. Two services at
once: what each is accounted of the base (Pss; shared pages count by halves), and what it holds alone.

The packaged `tiny`; `--full`: a network of sd21's shape with half its widths (1.5 GiB of weights), `whole` with 1, 4 and 8 performers."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import arguments, finish
from benchmarks.inputs.half_sd21 import write_half_sd21
from benchmarks.inputs.several_videos import move_and_save
from dpscale.body.rendered import HELD_OUT_SEED, render_performer
from dpscale.config.load import load
from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.checkpoint import commit_folder
from dpscale.data.layout import RunLayout
from dpscale.data.shards import write_clip
from dpscale.data.types import Clip
from dpscale.diffusion.delta import FINETUNED, read_delta
from dpscale.diffusion.weights import load_model
from dpscale.finetune.lora import adapted
from dpscale.joint.refresh import RefreshService
from dpscale.joint.state import RefreshRequest
from jobs.settings import CONFIGS

SIZE_PX, NUM_FRAMES, RANK, BOUND = 128, 8, 16, 4
COUNTS = {"whole": (1, 8, 32), "low-rank": (1, 8, 32)}
FULL_COUNTS = {"whole": (1, 4, 8), "low-rank": (1, 8, 32)}
_MIB = 2**20


def main() -> None:
    """One kind of delta after the other, each count in its own process; then two at once."""
    given = arguments(__doc__ or "")
    with tempfile.TemporaryDirectory(prefix="dpscale-bench-") as folder:
        os.environ["TMPDIR"] = folder  # of the services
        config = _config(Path(folder), given.full)
        rows, result = [], {"torch_threads": config.ray.torch_threads, "full": given.full}
        for kind, counts in (FULL_COUNTS if given.full else COUNTS).items():
            delta = _write_performers(config, kind, counts[-1])
            found = _grown(config, kind, counts, delta)
            rows += found
            result[kind] = _growth(*found[1:], delta)
            if kind == "whole":
                rows += _grown(config, kind, counts, delta, limit=BOUND)
                result["bounded_over_unbounded"] = rows[-1]["rss_mib"] / found[-1]["rss_mib"]
        two = _two_at_once(config, "whole")
    finish("service_memory", given.json, result | {"two_services": two}, rows)


def _growth(middle: dict[str, Any], most: dict[str, Any], delta: int) -> dict[str, float]:
    per_further = (most["rss_mib"] - middle["rss_mib"]) / (most["performers"] - middle["performers"])
    return {"per_further_performer_mib": per_further, "delta_mib": delta / _MIB, "ratio": per_further * _MIB / delta}


# ------------------------------------------------------------------------------------------ inputs


def _config(root: Path, full: bool) -> Config:
    config = load(CONFIGS / "tiny.toml", [f'run.root="{root}"', "tracking.kind=none"])
    diffusion = config.diffusion.model_dump() | {"sampling_steps": 1, "window": NUM_FRAMES, "stride": NUM_FRAMES // 2}
    if full:
        write_half_sd21(root / "base")
        diffusion |= {"preset": "sd21", "weights": str(root / "base"), "latent_size": SIZE_PX // 8}
    own: dict[str, Any] = {
        "diffusion": diffusion, "scheduler": config.scheduler.model_dump() | {"warm_videos": 1}, "performers": [], "videos": [],
        "drives": [{"kind": "self", "name": "self"}],
    }  # fmt: skip
    return Config.model_validate(config.model_dump() | own)


def _write_performers(config: Config, kind: str, count: int) -> int:
    """Shards and deltas, each performer's a little further off the base; returns the bytes of one performer's tensors."""
    layout, model = RunLayout.of(config), load_model(config.diffusion)
    clip = render_performer(HELD_OUT_SEED + 60, "dance_a", 2 * NUM_FRAMES, 15.0, SIZE_PX)
    embedding = model.embed_image(clip.frames[0])
    with adapted(model.denoiser, RANK if kind == "low-rank" else None, seed=0):
        for number in range(count):
            name = _name(kind, number)
            write_clip(layout.shard(name, "main"), Clip(name, "main", 15.0, NUM_FRAMES, clip.pose, clip.frames, None, embedding, clip.mask))
            commit_folder(layout.finetune(name), lambda folder: move_and_save(model, folder), {"settings": "a little off the base"})
    deltas = [read_delta(layout.finetune(_name(kind, 0)) / name) for name in FINETUNED]
    return sum(tensor.nbytes for delta in deltas for tensor in delta.tensors.values())


def _name(kind: str, number: int) -> str:
    return f"{kind}-{number:03d}"


# ---------------------------------------------------------------------------------------- measured


def _grown(config: Config, kind: str, counts: tuple[int, ...], delta: int, limit: int | None = None) -> list[dict[str, Any]]:
    """A row for each count; `limit`: performers whose deltas of `delta` bytes fit into the cache."""
    limit_gib = 64.0 if limit is None else (limit + 0.5) * delta / 2**30
    config = config.model_copy(update={"scheduler": config.scheduler.model_copy(update={"delta_cache_gib": limit_gib})})
    rows = []
    with _service(config, kind) as service:
        for count in counts:
            service.answer_for(count)
            memory, base = memory_of(service.pid), memory_of(service.pid, ".weights")
            rows.append({
                "deltas": kind if limit is None else f"{kind}, bounded", "performers": count, "rss_mib": memory["Rss"] / _MIB,
                "uss_mib": _alone_held(memory) / _MIB, "anonymous_mib": memory["Anonymous"] / _MIB, "base_mapped_mib": base["Rss"] / _MIB,
                "delta_mib": delta / _MIB,
            })  # fmt: skip
    return rows


def _two_at_once(config: Config, kind: str) -> list[dict[str, float]]:
    """Of each of two services: the base's pages, as they are accounted while both are there."""
    with _service(config, kind) as one, _service(config, kind) as other:
        for service in (one, other):
            service.answer_for(1)
        return [_shares(service.pid) for service in (one, other)]


def _shares(pid: int) -> dict[str, float]:
    memory, base = memory_of(pid), memory_of(pid, ".weights")
    return {
        "base_rss_mib": base["Rss"] / _MIB, "base_pss_mib": base["Pss"] / _MIB, "base_alone_mib": _alone_held(base) / _MIB,
        "rss_mib": memory["Rss"] / _MIB, "pss_mib": memory["Pss"] / _MIB, "uss_mib": _alone_held(memory) / _MIB,
    }  # fmt: skip


def _alone_held(memory: dict[str, int]) -> int:
    return memory["Private_Clean"] + memory["Private_Dirty"]


def memory_of(pid: int, file: str = "") -> dict[str, int]:
    """Bytes of a process's mappings by the names of /proc/PID/smaps, together: of those of a file whose name ends so, or of all."""
    total: dict[str, int] = {}
    for block in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path(f"/proc/{pid}/smaps").read_text(), flags=re.M):
        if block.partition("\n")[0].endswith(file):
            for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", block, re.M):
                total[name] = total.get(name, 0) + int(kib) * 1024
    return total


@dataclass(frozen=True)
class _Service:
    """A process with a service."""

    pid: int
    pipe: Connection

    def answer_for(self, count: int) -> None:
        """The first `count` performers have been served afterwards. Raises RuntimeError where the first one's frames are others then."""
        self.pipe.send(count)
        if not self.pipe.recv():
            raise RuntimeError(f"the first performer's frames are others after {count - 1} more performers, or every performer's are the same")


@contextmanager
def _service(config: Config, kind: str) -> Iterator[_Service]:
    context = multiprocessing.get_context("spawn")
    pipe, end = context.Pipe()
    process = context.Process(target=_serve, args=(end, config, kind))
    process.start()
    end.close()
    try:
        assert process.pid is not None
        yield _Service(process.pid, pipe)
    finally:
        pipe.close()
        process.join()


def _serve(pipe: Connection, config: Config, kind: str) -> None:
    torch.set_num_threads(config.ray.torch_threads)
    service = RefreshService(config, RunLayout.of(config))
    request = RefreshRequest(0, 0, 1.0, np.zeros((NUM_FRAMES, SIZE_PX, SIZE_PX, 3), np.uint8))

    def digest(number: int) -> str:
        return hashlib.sha256(service.answer(VideoConfig(performer=_name(kind, number)), request)).hexdigest()

    made: list[str] = []
    with suppress(EOFError):
        while True:
            made += [digest(number) for number in range(len(made), pipe.recv())]
            pipe.send(digest(0) == made[0] and len(set(made)) == len(made))


if __name__ == "__main__":
    main()
