"""Does finetuning pay? Held-out frames of performers that the base never saw, sampled from noise before and after it.

The man of pose2sim and three rendered performers, `tiny`, the settings of `dpscale demo`; body PSNR, SSIM and BlazePose's keypoint error
against the truth, beside the training frame with the nearest pose. Beside the JSON a contact sheet of each performer. `--full`: six rendered ones."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from benchmarks import arguments, finish
from dpscale.body.rendered import HELD_OUT_SEED
from dpscale.config.load import load
from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.checkpoint import write_atomically
from dpscale.data.layout import RunLayout
from dpscale.data.shards import read_clip
from dpscale.diffusion.weights import PoseVideoModel, load_model
from dpscale.evaluate.study import Case, case_of, nearest_pose, study
from dpscale.evaluate.video_files import contact_sheet, write_png
from dpscale.joint.performers import PerformerWeights
from dpscale.joint.refresh import DiffusionRefresh
from dpscale.joint.state import RefreshRequest
from dpscale.joint.video import load_task
from jobs.keypoint_detector import detect_keypoints
from jobs.pipeline import run_stages
from jobs.settings import CONFIGS

_RENDERED = ((1, "dance_b"), (11, "dance_b"), (13, "dance_a"), (2, "dance_a"), (12, "dance_a"), (14, "dance_b"))
"""Seeds above HELD_OUT_SEED, and motions. No walk: held out, it repeats what was trained. Of the first three BlazePose finds every true frame."""


def main() -> None:
    """Trains every performer with dpscale's own stages, then samples and measures."""
    given = arguments(__doc__ or "")
    path = given.json or Path("runs/benchmarks/finetune_quality.json")
    with tempfile.TemporaryDirectory(prefix="dpscale-bench-") as folder:
        config = _config(Path(folder), 6 if given.full else 3)
        if run_stages(config, ["preprocess", "finetune"]):
            raise RuntimeError("a performer could not be trained: see above")
        torch.set_num_threads(config.ray.torch_threads)
        model, rows = load_model(config.diffusion), []
        for video in config.planned_videos():
            case, made = _made(config, model, video)
            rows += _rows(video.performer, case, made, config)
            sheet = contact_sheet({"truth": case.truth} | made)
            write_atomically(path.with_name(f"{path.stem}-{video.performer}.png"), partial(write_png, picture=sheet))
    finish("finetune_quality", path, _summary(rows), rows)


def _config(root: Path, num_rendered: int) -> Config:
    config = load(CONFIGS / "demo.toml", [f'run.root="{root}"', "tracking.kind=none"])
    man = next(performer for performer in config.performers if performer.kind == "pose2sim")
    rendered = [
        {"kind": "rendered", "name": f"rendered-{seed}", "performer_seed": HELD_OUT_SEED + seed, "motion": motion, "num_frames": 76}
        for seed, motion in _RENDERED[:num_rendered]
    ]
    own = {"performers": [man.model_dump(), *rendered], "drives": [{"kind": "self", "name": "self"}], "videos": []}
    return Config.model_validate(config.model_dump() | own)


def _made(config: Config, model: PoseVideoModel, video: VideoConfig) -> tuple[Case, dict[str, UInt8[np.ndarray, "N H W 3"]]]:
    """The held-out frames by each way. The same noise before and after."""
    layout = RunLayout.of(config)
    case, task = case_of(read_clip(layout.shard(video.performer, "main")), None), load_task(config, layout, video)
    request = RefreshRequest(0, 0, 1.0, np.zeros((*task.shape, 3), np.uint8))
    weights = PerformerWeights(model)
    before = DiffusionRefresh(model, task)(request)
    weights.use(layout.finetune(video.performer))
    after = DiffusionRefresh(model, task)(request)
    weights.restore()
    return case, {"nearest_pose": nearest_pose(case), "before": before, "after": after}


def _rows(performer: str, case: Case, made: dict[str, UInt8[np.ndarray, "N H W 3"]], config: Config) -> Iterator[dict[str, Any]]:
    scores = study(case, made, config.evaluate.body_dilation_px, detect_keypoints).methods
    for way, score in scores.items():
        names = ("psnr_body", "ssim", "keypoint_error_px", "keypoint_detected", "warp_error")
        yield {"performer": performer, "way": way} | {name: score[name] for name in names}


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    by = {(row["performer"], row["way"]): row for row in rows}
    performers = list(dict.fromkeys(row["performer"] for row in rows))

    def gain(name: str, sign: int, other: str) -> dict[str, float]:
        return {p: sign * (by[p, "after"][name] - by[p, other][name]) for p in performers}

    better = {"psnr_body": 1, "ssim": 1, "keypoint_error_px": -1}
    gains = {name: gain(name, sign, "before") for name, sign in better.items()}
    return {
        "wins_everywhere": all(value > 0 for gain in gains.values() for value in gain.values()),
        "least_gain": {name: min(gain.values()) for name, gain in gains.items()},
        "gain": gains,
        "psnr_body_over_nearest_pose_db": gain("psnr_body", 1, "nearest_pose"),
        "keypoint_error_below_nearest_pose_px": gain("keypoint_error_px", -1, "nearest_pose"),
    }


if __name__ == "__main__":
    main()
