"""What is gained when the windows of several videos of one performer share UNet calls (scheduler.refresh_together)?

One refresh service, eight short videos of one performer (8 frames, one window each): a refresh of each, one after the other, and then the same
requests from as many threads as `together` says. Ways take turns; of two rounds the faster one counts. `speedup` is frames/s over one by one, and
`most_difference` the largest difference of a pixel, in grey levels: calls of another size round differently.

The packaged `tiny` at 128 px; `--full`: a network of sd21's shape with half its widths (1.5 GiB of weights) at 64 px, whose calls are bound by
reading weights."""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import arguments, finish
from benchmarks.inputs.half_sd21 import write_half_sd21
from benchmarks.inputs.several_videos import named_performers, write_videos
from dpscale.config.load import load
from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from dpscale.data.seeds import derive
from dpscale.joint.refresh import RefreshService
from dpscale.joint.state import RefreshRequest
from jobs.settings import CONFIGS

TOGETHER, NUM_VIDEOS, NUM_FRAMES, STRENGTH, ROUNDS = (1, 2, 4, 8), 8, 8, 0.7, 2


def main() -> None:
    given = arguments(__doc__ or "")
    size_px = 64 if given.full else 128
    with tempfile.TemporaryDirectory(prefix="dpscale-bench-") as folder:
        os.environ["TMPDIR"] = folder  # of the service
        config = _config(Path(folder), given.full, size_px)
        torch.set_num_threads(config.ray.torch_threads)
        drives = [f"dance-{number}" for number in range(NUM_VIDEOS)]
        _, *videos = write_videos(config, dict.fromkeys(["self", *drives], (NUM_FRAMES,)), size_px)
        service = RefreshService(config, RunLayout.of(config))
        for video in videos:
            service.answer(video, _request(config, size_px))  # conditions are made once
        seconds: dict[int, list[float]] = {together: [] for together in TOGETHER}
        frames: dict[int, np.ndarray] = {}
        for _ in range(ROUNDS):
            for together in TOGETHER:
                started = time.perf_counter()
                with ThreadPoolExecutor(together) as pool:
                    made = list(pool.map(lambda video: np.array(service.answer(video, _request(config, size_px))), videos))
                seconds[together].append(time.perf_counter() - started)
                frames[together] = np.stack(made).astype(np.int16)
    rate = {together: NUM_VIDEOS * NUM_FRAMES / min(each) for together, each in seconds.items()}
    rows = [
        {
            "together": together, "frames_per_s": rate[together], "speedup": rate[together] / rate[1],
            "most_difference": int(np.abs(frames[together] - frames[1]).max()),
        } for together in TOGETHER
    ]  # fmt: skip
    finish("together", given.json, {
        "speedup_vs_one_by_one": max(rate.values()) / rate[1], "most_difference": max(row["most_difference"] for row in rows),
        "preset": config.diffusion.preset, "sampling_steps": config.diffusion.sampling_steps, "torch_threads": config.ray.torch_threads,
    }, rows)  # fmt: skip


def _request(config: Config, size_px: int) -> RefreshRequest:
    """V_s of noise: what it shows changes no time."""
    noise = np.random.default_rng(derive(config.run.seed, "guidance")).integers(0, 256, (NUM_FRAMES, size_px, size_px, 3), dtype=np.uint8)
    return RefreshRequest(refresh=1, step=0, strength=STRENGTH, guidance=noise)


def _config(root: Path, full: bool, size_px: int) -> Config:
    config = load(CONFIGS / "tiny.toml", [f'run.root="{root}"', "tracking.kind=none"])
    diffusion = config.diffusion.model_dump() | {"sampling_steps": 8, "window": NUM_FRAMES, "stride": NUM_FRAMES // 2}
    if full:
        write_half_sd21(root / "base")
        diffusion |= {"preset": "sd21", "weights": str(root / "base"), "latent_size": size_px // 8}
    others = [{"kind": "video", "name": f"dance-{number}", "path": "none.mp4"} for number in range(NUM_VIDEOS)]
    own: dict[str, Any] = {
        "diffusion": diffusion, "scheduler": config.scheduler.model_dump() | {"warm_videos": NUM_VIDEOS}, "performers": named_performers(1),
        "videos": [], "drives": [{"kind": "self", "name": "self"}, *others],
    }  # fmt: skip
    return Config.model_validate(config.model_dump() | own)


if __name__ == "__main__":
    main()
