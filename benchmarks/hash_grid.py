"""One field step (draw, encode 3D and 2D, networks, backward, Adam) at METHOD.md's sizes: fused kernels against the plain torch reference.

Both in one run, in turn. The reference is hash_grid.py with its one flat table, torch's networks and torch's fused dense Adam. Beside it:
where a step's time goes, bytes moved against the machine's measured memory bandwidth, seconds to render a frame and to save the state, and, where
DPSCALE_REAL_DATA names the real footage, the steps that both need to show it at 30 dB.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks import arguments, finish
from dpscale.config.schema import FieldConfig
from dpscale.data.checkpoint import commit_folder
from dpscale.data.tensor_file import save_tensors
from dpscale.field.adam import optimizer_of
from dpscale.field.hash_grid import HashGrid
from dpscale.field.hash_grid_fused import FusedHashGrid, kernels
from dpscale.field.loss import draw_samples, ivr_loss
from dpscale.field.table import AdamStep
from dpscale.field.video_field import VideoField

_SIZES = (16384, 65536)
_PSNR_DB, _CHECK_EVERY, _MOST_STEPS = 30.0, 10, 600
_CLIP_FRAMES, _CLIP_PX = 20, 128
_LINE_BYTES = 64
"""What memory moves at least."""


def main() -> None:
    given = arguments(__doc__ or "", device={"default": "cpu", "choices": ["cpu", "cuda"]})
    device, more = torch.device(given.device), 4 if given.full else 1
    rows, speedups, result = [], {}, {"device": _name(device), "torch_threads": torch.get_num_threads()}
    for size in _SIZES:
        times = _steps(size, more * (10 if size < 2**15 else 6), device)
        medians = {name: statistics.median(sum(parts.values()) for parts in own) for name, own in times.items()}
        speedups[size] = medians["reference"] / medians["fused"]
        rows += [_row(size, name, own, medians[name]) for name, own in times.items()]
    bandwidth = _bandwidth(device)
    traffic = {size: _traffic(size, bandwidth, device) for size in _SIZES}
    finish("hash_grid", given.json, {
        "speedup_vs_reference": min(speedups.values()),
        "speedups": speedups,
        "step_s": {row["way"]: {r["samples"]: r["step_ms"] / 1e3 for r in rows if r["way"] == row["way"]} for row in rows},
        "fraction_of_roof": min(each["fraction_of_roof"] for each in traffic.values()),
        "bandwidth_gb_s": bandwidth / 1e9,
        "tables": traffic,
        "render_s_per_frame": {px: _render(px, 2 * more, device) for px in ((128, 256) if not given.full else (128, 256, 512))},
        "state": _saved(2 * more + 1),
        "steps_to_30_db": _steps_to_quality(3 if given.full else 1, device),
        **result,
    }, rows)  # fmt: skip


def _row(size: int, name: str, own: list[dict[str, float]], step_s: float) -> dict[str, Any]:
    parts = {f"{part}_ms": 1e3 * statistics.median(times[part] for times in own) for part in own[0]}
    return {"samples": size, "way": name, "step_ms": 1e3 * step_s, **parts}


# ------------------------------------------------------------------------------------------- steps


def _config(kind: str) -> FieldConfig:
    """METHOD.md's sizes, all fused or all reference."""
    plain = FieldConfig()
    grids = {name: getattr(plain, name).model_copy(update={"kind": kind}) for name in ("deformation_grid", "canonical_grid")}
    how = {"networks": "fused", "adam": "lazy"} if kind == "fused" else {"networks": "torch", "adam": "dense"}
    return plain.model_copy(update={**grids, **how})


class _Way:
    """A field and its optimiser, taking steps towards `targets` [N, H, W, 3]."""

    def __init__(self, kind: str, targets: torch.Tensor, seed: int = 0) -> None:
        config = _config(kind)
        self.targets, (frames, height, width, _) = targets, targets.shape
        self.field = VideoField(config, frames, height, width, torch.Generator().manual_seed(seed)).to(targets.device)
        self.optimizer = optimizer_of(self.field, config)

    def step(self, number: int, num_samples: int) -> dict[str, float]:
        """Seconds of each part."""
        clock = _Clock(self.targets.device)
        samples = draw_samples(self.field, self.targets, None, num_samples, 1, torch.Generator().manual_seed(number))
        clock.lap("draw")
        loss = ivr_loss(self.field, samples, 0.0).total
        clock.lap("forward")
        self.optimizer.zero_grad()
        loss.backward()
        clock.lap("backward")
        self.optimizer.step()
        clock.lap("adam")
        return clock.laps


class _Clock:
    def __init__(self, device: torch.device) -> None:
        self._device, self.laps = device, {}
        self._last = self._now()

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def lap(self, name: str) -> None:
        now = self._now()
        self.laps[name], self._last = now - self._last, now


def _seconds(work: Callable[[], object], times: int, device: torch.device) -> float:
    """Median of `times` runs after one that does not count."""
    work()
    laps = []
    for _ in range(times):
        clock = _Clock(device)
        work()
        clock.lap("work")
        laps.append(clock.laps["work"])
    return statistics.median(laps)


def _random_targets(device: torch.device) -> torch.Tensor:
    """METHOD.md's clip is 100 frames of 256 px; what they show does not matter for time."""
    return torch.randint(0, 256, (100, 256, 256, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(device)


def _steps(size: int, times: int, device: torch.device) -> dict[str, list[dict[str, float]]]:
    """Both ways in turn; the first two steps of each (memory is taken, kernels are loaded) do not count."""
    targets = _random_targets(device)
    ways = {kind: _Way(kind, targets) for kind in ("fused", "reference")}
    taken: dict[str, list[dict[str, float]]] = {kind: [] for kind in ways}
    for number in range(times + 2):
        for kind in ways if number % 2 else reversed(ways):
            taken[kind].append(ways[kind].step(number, size))
    return {kind: own[2:] for kind, own in taken.items()}


# ------------------------------------------------------------------------------------------- bytes


def _bandwidth(device: torch.device) -> float:
    """bytes/s of a large copy, reading and writing counted: the roof."""
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * source.element_size() / _seconds(lambda: target.copy_(source), 7, device)


def _traffic(size: int, bandwidth: float, device: torch.device) -> dict[str, float]:
    """Of the tables' part of a step: encode, gradient of the canonical points, gradient and Adam."""
    way = _Way("fused", _random_targets(device))
    samples = draw_samples(way.field, way.targets, None, size, 1, torch.Generator().manual_seed(0))
    parts = [
        _grid_traffic(way.field.deformation.grid, samples.points),
        _grid_traffic(way.field.canonicals[0].grid, samples.points[:, :2].contiguous()),
    ]
    moved, seconds = (sum(column) for column in zip(*parts, strict=True))
    return {"moved_mb": moved / 1e6, "seconds": seconds, "gb_s": moved / seconds / 1e9, "fraction_of_roof": moved / seconds / bandwidth}


def _grid_traffic(grid: FusedHashGrid, points: torch.Tensor) -> tuple[float, float]:
    """Bytes and seconds. Bytes are those that memory must move if a cache holds a table's lines only within one call: a lower bound."""
    own, table = kernels(points), grid.table.detach()
    mean, square = torch.zeros_like(table), torch.zeros_like(table)
    gradient = torch.rand(len(points), grid.num_features, device=points.device)
    features, lines = gradient.numel() * gradient.element_size(), _lines(grid, points) * _LINE_BYTES
    adam = AdamStep.at(9, 1e-3, (0.9, 0.99), 1e-15)
    calls: list[tuple[Callable[[], object], float]] = [
        (lambda: own.encode(points, table, grid.shape), lines + features),
        (lambda: own.update(points, gradient, table, mean, square, grid.shape, adam), 6 * lines + features),
    ]
    if grid.num_dims == 2:  # the 3D grid's points are given
        calls.append((lambda: own.point_gradient(points, table, gradient, grid.shape), lines + features))
    return sum(size for _, size in calls), sum(_seconds(call, 5, points.device) for call, _ in calls)


def _lines(grid: HashGrid, points: torch.Tensor) -> int:
    """Memory lines of the table, as [rows, features], that hold a vertex of these points."""
    scaled = points.t().clamp(0, 1)[:, None, :] * grid.resolutions
    rows = grid._rows(torch.minimum(scaled.int(), grid.resolutions - 1))
    row_bytes = grid.table.element_size() * grid.num_features // len(grid.resolutions)
    return len(torch.unique(rows.long() * row_bytes // _LINE_BYTES))


# ------------------------------------------------------------------------------------------ render


def _render(px: int, times: int, device: torch.device) -> dict[str, float]:
    """Seconds a frame of px x px: on its lattice, pixel by pixel with the same kernels, and by the reference."""
    targets = torch.zeros(4, px, px, 3, dtype=torch.uint8, device=device)
    fused, reference = _Way("fused", targets).field, _Way("reference", targets).field

    @torch.no_grad()
    def plainly(field: VideoField) -> None:
        pixels = torch.arange(px * px, 2 * px * px, device=device)
        torch.cat([field(field.points(part)) for part in pixels.split(16384)])

    ways = {"lattice": lambda: list(fused.render([1])), "fused": lambda: plainly(fused), "reference": lambda: plainly(reference)}
    return {name: _seconds(work, 2 * times + 1, device) for name, work in ways.items()}


# ------------------------------------------------------------------------------------------- state


def _saved(times: int) -> dict[str, float]:
    """Seconds to commit field and Adam to the disk, and by safetensors' own writing, in turn; and to read them back."""
    way = _Way("fused", torch.zeros(4, 64, 64, 3, dtype=torch.uint8))
    way.step(0, _SIZES[0])
    tensors = {name: parameter.detach() for name, parameter in way.field.named_parameters()}
    moments = {f"{name} {key}": value for name, parameter in way.field.named_parameters() for key, value in way.optimizer.state[parameter].items()}
    seconds: dict[str, list[float]] = {"save_s": [], "save_by_safetensors_s": [], "load_s": []}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for number in range(times):
            for key, save in (("save_s", save_tensors), ("save_by_safetensors_s", lambda path, made: save_file(made, path))):
                path, started = Path(folder) / f"{number}-{key}", time.perf_counter()
                commit_folder(path, lambda new, save=save: save(new / "state.safetensors", tensors | moments), {})
                seconds[key].append(time.perf_counter() - started)
            started = time.perf_counter()
            load_file(Path(folder) / f"{number}-save_s" / "state.safetensors")
            seconds["load_s"].append(time.perf_counter() - started)
    return {"mb": sum(t.numel() * t.element_size() for t in (tensors | moments).values()) / 1e6} | {
        key: statistics.median(own) for key, own in seconds.items()
    }


# ----------------------------------------------------------------------------------------- quality


def _steps_to_quality(seeds: int, device: torch.device) -> dict[str, Any]:
    """Steps, in tens, until V_s shows the real man at 30 dB, for each seed; none within the limit: null."""
    folder = os.environ.get("DPSCALE_REAL_DATA")
    if not folder:
        return {"note": "left out: DPSCALE_REAL_DATA, the folder of real footage, is not set"}
    targets = _clip(Path(folder) / "single_person_demo.mp4").to(device)
    ways = {kind: [_steps_until(_Way(kind, targets, seed)) for seed in range(seeds)] for kind in ("fused", "reference")}
    return {**ways, "clip": f"{_CLIP_FRAMES} frames of {_CLIP_PX} px", "samples": _SIZES[0]}


def _steps_until(way: _Way) -> int | None:
    frames = range(0, _CLIP_FRAMES, 4)  # every fourth: the reference renders slowly
    shown = way.targets[::4].cpu().numpy().astype(np.float32)
    for number in range(1, _MOST_STEPS + 1):
        way.step(number, _SIZES[0])
        if number % _CHECK_EVERY == 0:
            error = np.mean((np.stack(list(way.field.render(frames))) - shown) ** 2)
            if 10 * np.log10(255**2 / error) >= _PSNR_DB:
                return number
    return None


def _clip(path: Path) -> torch.Tensor:
    """[frames, px, px, 3]: the middle square of the first frames, made small."""
    import av  # the machine with the GPU need not have it
    from PIL import Image

    pictures = []
    with av.open(str(path)) as container:
        for _, frame in zip(range(_CLIP_FRAMES), container.decode(video=0), strict=False):
            image = frame.to_image()
            side, left, top = min(image.size), (image.width - min(image.size)) // 2, (image.height - min(image.size)) // 2
            square = image.crop((left, top, left + side, top + side))
            pictures.append(np.asarray(square.resize((_CLIP_PX, _CLIP_PX), Image.Resampling.LANCZOS)))
    return torch.from_numpy(np.stack(pictures))


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


if __name__ == "__main__":
    main()
