"""`dpscale pretrain`: trains the base model of the preset `tiny` on rendered performers, in one process, into <run>/model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np

from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from dpscale.evaluate.frame_metrics import psnr, psnr_body
from dpscale.finetune.base_model import pretrain
from jobs.progress import clock
from jobs.run_folder import claimed

LINE_EVERY_S = 15.0


def run(config: Config) -> int:
    layout = RunLayout.of(config)
    print(f"pretraining -> {layout.root / 'model'}", flush=True)
    with claimed(config, layout):
        card = pretrain(config, layout.root, _mean_psnr, lines(print))
    print(json.dumps(card, indent=2))
    return 0


def _mean_psnr(made: np.ndarray, truth: np.ndarray, body: np.ndarray | None) -> float:
    """In dB over all frames, of the whole picture or of `body`."""
    return float(np.nanmean(psnr(made, truth) if body is None else psnr_body(made, truth, body)))


def lines(say: Callable[[str], object]) -> Callable[[str, int, int, float], None]:
    """A log that says at most a line in LINE_EVERY_S, with the time that is left of the phase at the pace since its first step."""
    begun: dict[str, tuple[float, int]] = {}
    said_at = -LINE_EVERY_S

    def log(phase: str, done: int, total: int, loss: float) -> None:
        nonlocal said_at
        now = time.monotonic()
        start, first = begun.setdefault(phase, (now, done))
        if now - said_at < LINE_EVERY_S and done < total:
            return
        said_at = now
        left = f", about {clock((now - start) / (done - first) * (total - done))} left" if done > first else ""
        say(f"{phase:<10}  {done} of {total}  loss {loss:.4f}{left}")

    return log
