"""How well can V_s alone show a real man? All frames of pose2sim's man at 256 x 256 px, reconstruction loss only, METHOD's sizes.

PSNR of the rendered V_s against the frames it was fitted to, on the way and at the end; wanted are 32 dB within the paper's 10,000 steps.
Default: as many steps as eight minutes allow. `--full`: all of them. `--frames FILE`: frames as .npy, uint8 [N, H, W, 3], instead of
the man's; then, and with `--device cuda`, torch, numpy and pydantic are all that is needed. `--write-frames FILE` writes the man's and
stops. The learning rate halves at FieldConfig's milestones, whatever the number of steps."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from benchmarks import arguments, finish, machine
from dpscale.data.checkpoint import write_json

SIZE_PX, STEPS, WANTED_DB = 256, 10_000, 32.0
_BUDGET_S = 480.0
_LOOKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Parts of the steps after which V_s is rendered."""


def main() -> None:
    """Fits, measures, writes."""
    given = arguments(
        __doc__ or "",
        frames={"type": Path, "metavar": "FILE"},
        **{"write-frames": {"type": Path, "metavar": "FILE"}},
        device={"default": "cpu", "choices": ["cpu", "cuda"]},
        threads={"type": int, "default": None, "help": "torch threads; none: torch's own choice"},
    )
    if given.write_frames is not None:
        np.save(given.write_frames, _man())
        return
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    frames = _man() if given.frames is None else np.load(given.frames)
    _stand_in_for_jaxtyping()
    rows = list(fit(frames, given.device, STEPS, math.inf if given.full else _BUDGET_S))
    last = rows[-1]
    reached = next((row for row in rows if row["psnr_db"] >= WANTED_DB), None)
    result = {
        "psnr_db": last["psnr_db"], "steps": last["step"], "fit_s": last["fit_s"], "step_ms": 1000 * last["fit_s"] / last["step"],
        "reaches_32_db": reached is not None, "steps_to_32_db": None if reached is None else reached["step"],
        "frames": list(frames.shape), "device": _device_name(given.device), "torch_threads": torch.get_num_threads(),
    }  # fmt: skip
    _finish(given.json, result, rows)


def fit(frames: np.ndarray, device: str, num_steps: int, budget_s: float) -> Iterator[dict[str, Any]]:
    """Fits a field to `frames`, uint8 [N, H, W, 3]; a row at each look, the last one after `num_steps` or when `budget_s` are spent."""
    from dpscale.config.schema import FieldConfig  # after the stand-in for jaxtyping
    from dpscale.field.adam import optimizer_of
    from dpscale.field.loss import draw_samples, ivr_loss
    from dpscale.field.video_field import VideoField

    config = FieldConfig()
    field = VideoField(config, *frames.shape[:3], torch.Generator().manual_seed(0)).to(device)
    optimizer = optimizer_of(field, config)
    targets, generator = torch.from_numpy(frames).to(device), torch.Generator().manual_seed(1)
    looks, spent_s = {round(part * num_steps) for part in _LOOKS}, 0.0
    for step in range(1, num_steps + 1):
        started = time.monotonic()
        samples = draw_samples(field, targets, None, config.samples, config.flow_samples, generator)
        losses = ivr_loss(field, samples, 0.0)
        optimizer.zero_grad()
        losses.total.backward()
        for group in optimizer.param_groups:
            group["lr"] = config.lr * 0.5 ** sum(step > milestone for milestone in config.lr_milestones)
        optimizer.step()
        if device == "cuda" and (step in looks or step % 100 == 0):
            torch.cuda.synchronize()
        spent_s += time.monotonic() - started
        over = spent_s > budget_s
        if step in looks or over:
            row = {"step": step, "psnr_db": _psnr(field, frames), "loss": float(losses.total.detach()), "fit_s": spent_s}
            print(row, flush=True)
            yield row
        if over:
            return


def _psnr(field: Any, frames: np.ndarray) -> float:
    """Mean over frames of 10 log10(255^2 / mse), as evaluate.frame_metrics has it."""
    errors = [((made.astype(np.float64) - truth) ** 2).mean() for made, truth in zip(field.render(), frames, strict=True)]
    return float(np.mean([10 * math.log10(255.0**2 / max(error, 1e-6)) for error in errors]))


def _man() -> np.ndarray:
    """The man's frames, followed and cropped as `dpscale preprocess` does it: uint8 [N, H, W, 3]."""
    from dpscale.config.schema import PreprocessConfig
    from dpscale.config.sources import Pose2simPerformer
    from dpscale.preprocess.blazepose import BlazePose
    from dpscale.preprocess.person import find_person
    from dpscale.preprocess.sources import footage_of

    settings, footage = PreprocessConfig(size=SIZE_PX), footage_of(Pose2simPerformer(name="man"))
    crop = find_person(footage, settings.max_frames, None, settings, BlazePose(torch.get_num_threads())).crop(settings)
    return np.stack([crop.apply(frame) for frame in footage.frames(settings.max_frames)])


def _stand_in_for_jaxtyping() -> None:
    """Where it is not installed its names stand for nothing: annotations of shapes are checked in tests alone."""
    if find_spec("jaxtyping") is not None:
        return

    class Shape:
        def __class_getitem__(cls, _: object) -> type:
            return cls

    module = ModuleType("jaxtyping")
    for name in ("Bool", "Float", "Int", "Shaped", "UInt8"):
        setattr(module, name, Shape)
    sys.modules["jaxtyping"] = module


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def _finish(path: Path | None, result: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """As every benchmark where rich is installed; else the JSON alone, without table and commit."""
    if find_spec("rich") is not None:
        finish("fit_quality", path, result, rows)
        return
    write_json(path or Path("runs/benchmarks/fit_quality.json"), {**result, "rows": rows, "machine": machine()})
    print(result)


if __name__ == "__main__":
    main()
