"""Does memory grow with the length of a video? 1800 frames against 300 at 128 x 128 px, a minute against ten seconds at 30 fps.

The joint optimisation of a rendered performer, driven by its own recorded pose forth and back: few steps, `tiny` with one sampling step a
pass (the first and the last), each length in a fresh process that reads shards and writes the result. Peaks are read every 20 ms
from /proc: resident memory as a whole (`peak_rss`), and of it the anonymous part (`peak_anonymous`), which alone cannot be dropped: the rest
are pages of mapped files. `--part field`: a refresh that mirrors V_s frame by frame instead of the diffusion model, so that only the
field's half is measured. `--full`: ten times the field steps."""

from __future__ import annotations

import multiprocessing
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from benchmarks import arguments, finish
from dpscale.body.rendered import HELD_OUT_SEED, render_performer
from dpscale.config.load import load
from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.array_files import mapped, write_frames
from dpscale.data.checkpoint import commit_folder
from dpscale.data.heap import keep_heap_small
from dpscale.data.layout import RunLayout
from dpscale.data.shards import write_clip
from dpscale.data.types import Clip
from dpscale.diffusion.encoders import load_encoders
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.loop import Refresh, optimise_on_disk
from dpscale.joint.state import RefreshRequest
from dpscale.joint.video import VideoTask, load_task
from jobs.settings import CONFIGS

SIZE_PX, LENGTHS, STEPS = 128, (300, 1800), 40
_RENDERED, _KNOWN = 60, 48
"""Frames of the performer's own clip, and those of them that train."""
_WANTED = 1.2


def main() -> None:
    """One length after the other, each in its own process."""
    given = arguments(__doc__ or "", part={"choices": ["all", "field"], "default": "all", "help": "what is measured"})
    with tempfile.TemporaryDirectory(prefix="dpscale-bench-") as folder:
        config = _config(Path(folder), STEPS * (10 if given.full else 1))
        _write_shards(config)
        rows = [_in_fresh_process(config, num_frames, given.part) for num_frames in LENGTHS]
    short, long = rows
    result = {f"{name}_{row['frames']}_gib": row[f"{name}_gib"] for row in rows for name in ("peak_rss", "peak_anonymous", "peak_file")}
    ratio = long["peak_rss_gib"] / short["peak_rss_gib"]
    finish("long_video", given.json, {
        **result, "ratio": ratio, "ratio_anonymous": long["peak_anonymous_gib"] / short["peak_anonymous_gib"], "constant": ratio <= _WANTED,
        "part": given.part,
    }, rows)  # fmt: skip


def _config(root: Path, steps: int) -> Config:
    config = load(CONFIGS / "demo.toml", [f'run.root="{root}"', "tracking.kind=none"])
    own: dict[str, Any] = {
        "performers": [{"kind": "rendered", "name": "someone", "performer_seed": HELD_OUT_SEED + 11, "motion": "dance_b"}],
        "drives": [{"kind": "motion", "name": f"frames-{n}", "motion": "dance_b", "num_frames": n} for n in LENGTHS],
        "videos": [],
        "diffusion": config.diffusion.model_dump() | {"sampling_steps": 1},
        "field": _small(config.field.model_dump()),
        "joint": config.joint.model_dump() | {"steps": steps, "refresh_interval": steps, "warm_up_steps": 5},
        "scheduler": config.scheduler.model_dump() | {"slice_steps": steps // 4},
    }
    return Config.model_validate(config.model_dump() | own)


def _small(field: dict[str, Any]) -> dict[str, Any]:
    """A small field: three times every pixel of a minute is rendered here, and what it takes does not depend on the field's size."""
    grids = {name: field[name] | {"n_levels": 2} for name in ("deformation_grid", "canonical_grid")}
    return field | grids | {"deformation_layers": 1, "deformation_width": 16, "canonical_layers": 1, "canonical_width": 16}


def _write_shards(config: Config) -> None:
    """The performer's own clip, and drives that go through its pose forth and back; the weights are the base's."""
    layout, name = RunLayout.of(config), config.performers[0].name
    clip = render_performer(HELD_OUT_SEED + 11, "dance_b", _RENDERED, 30.0, SIZE_PX)
    embedding = load_encoders(config.diffusion).embed_image(clip.frames[0])
    write_clip(layout.shard(name, "main"), Clip(name, "main", 30.0, _KNOWN, clip.pose, clip.frames, None, embedding, clip.mask))
    there_and_back = np.concatenate([np.arange(_RENDERED), np.arange(_RENDERED - 2, 0, -1)])
    for drive, length in zip(config.drives, LENGTHS, strict=True):
        pose = clip.pose.at(np.resize(there_and_back, length))
        write_clip(layout.shard(name, drive.name), Clip(name, drive.name, 30.0, length, pose))
    commit_folder(layout.finetune(name), lambda folder: None, {"settings": "the base's own weights"})


def _in_fresh_process(config: Config, num_frames: int, part: str) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (config, num_frames, part))


def _measure(config: Config, num_frames: int, part: str) -> dict[str, Any]:
    torch.set_num_threads(config.ray.torch_threads)
    keep_heap_small()  # as the workers do
    layout, video = RunLayout.of(config), VideoConfig(performer=config.performers[0].name, drive=f"frames-{num_frames}")
    started = time.monotonic()
    with _peaks() as peak:
        task = load_task(config, layout, video)
        refresh = _mirror(layout.joint(video) / "mirror.npy") if part == "field" else _diffusion(config, task)
        optimise_on_disk(task, VideoStore.of(config, layout, video), refresh, lambda *_: None)
    gib = {f"peak_{name}_gib": kib / 2**20 for name, kib in peak.items()}
    return {"frames": len(task.pose), **gib, "seconds": time.monotonic() - started}


def _diffusion(config: Config, task: VideoTask) -> Refresh:
    from dpscale.diffusion.weights import load_model
    from dpscale.joint.refresh import DiffusionRefresh

    return DiffusionRefresh(load_model(config.diffusion), task)


def _mirror(path: Path) -> Refresh:
    def refresh(request: RefreshRequest) -> UInt8[np.ndarray, "N H W 3"]:
        """V_s, mirrored, in a file."""
        write_frames(path, request.guidance.shape[:3], (frame[:, ::-1] for frame in request.guidance))
        return mapped(path)

    return refresh


@contextmanager
def _peaks() -> Iterator[dict[str, int]]:
    """Peaks of this process's resident memory in KiB: all, anonymous, pages of mapped files."""
    peak, stop = {"rss": 0, "anonymous": 0, "file": 0}, threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            status = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M))
            for name, key in (("rss", "VmRSS"), ("anonymous", "RssAnon"), ("file", "RssFile")):
                peak[name] = max(peak[name], int(status[key]))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    main()
