"""Everything about one finished video: read, score, write its files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.checkpoint import commit_folder, marker_of, write_json
from dpscale.data.layout import RunLayout
from dpscale.data.mp4 import write_mp4
from dpscale.data.shards import read_clip
from dpscale.data.types import Clip, InputError
from dpscale.evaluate import video_files
from dpscale.evaluate.frame_metrics import KeypointDetector
from dpscale.evaluate.record import read_record, record_of
from dpscale.evaluate.study import Case, case_of, mean_frame, nearest_pose, study, warped

VERSION = 2
"""Raise it when a metric or a file changes its meaning: finished videos are then evaluated again."""

MADE = ("wo_opt", "ivr_opt", "field")
"""Arrays in a joint result: V_p of the first pass, the final V_p, and V_s, which methods without representation have not."""

_SHEET_ROWS = ("pose", "truth", "nearest_pose", "warped", "wo_opt", "ivr_opt")


@dataclass(frozen=True)
class Evaluated:
    """One video's record, as it stands in its metrics file."""

    record: dict[str, Any]
    skipped: bool
    """True if it was finished by an earlier run from the same inputs."""


def evaluate_video(config: Config, layout: RunLayout, video: VideoConfig, detect: KeypointDetector | None) -> Evaluated:
    """Writes the files in ``layout.videos(video)`` and the record ``layout.metrics(video)``, unless they are there already.

    Raises InputError if there is no finished result, or it does not fit its clips."""
    fingerprint = _fingerprint(config, layout, video, detect is not None)
    finished = read_record(layout.metrics(video))
    if finished and finished["fingerprint"] == fingerprint and marker_of(layout.videos(video)) == {"fingerprint": fingerprint}:
        return Evaluated(finished, skipped=True)
    main = read_clip(layout.shard(video.performer, "main"))
    driving = None if _is_self(config, video) else read_clip(layout.shard(video.performer, video.drive))
    case = case_of(main, driving)
    made = _made(layout, video)
    baselines = {"warped": warped(case), "nearest_pose": nearest_pose(case), "mean_frame": mean_frame(case)}
    scores = study(case, {"ivr_opt": made["ivr_opt"], "wo_opt": made["wo_opt"], **baselines}, config.evaluate.body_dilation_px, detect)
    _write_files(layout.videos(video), fingerprint, main, case, made | baselines)
    record = record_of(video, config.joint.method, main.num_train, case, scores, fingerprint)
    write_json(layout.metrics(video), record)
    return Evaluated(record, skipped=False)


def artifacts(folder: Path) -> list[Path]:
    """The files of a finished video that people look at."""
    return sorted(path for path in folder.iterdir() if path.suffix in (".mp4", ".png"))


def _is_self(config: Config, video: VideoConfig) -> bool:
    return next(drive.kind for drive in config.drives if drive.name == video.drive) == "self"


def _result(layout: RunLayout, video: VideoConfig) -> Path:
    return layout.joint(video) / "result"


def _made(layout: RunLayout, video: VideoConfig) -> dict[str, UInt8[np.ndarray, "N H W 3"]]:
    with np.load(_result(layout, video) / "frames.npz") as arrays:
        return {name: arrays[name] for name in MADE if name in arrays}


def _fingerprint(config: Config, layout: RunLayout, video: VideoConfig, with_keypoints: bool) -> str:
    """Changes whenever the record or the files could."""
    frames = _result(layout, video) / "frames.npz"
    if marker_of(frames.parent) is None or not frames.exists():
        raise InputError(f"{layout.video_name(video)} has no finished result in {frames.parent}; run optimize first")
    with frames.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    clips = [marker_of(layout.shard(video.performer, clip)) for clip in ("main", video.drive)]
    inputs = [VERSION, with_keypoints, config.evaluate.model_dump(mode="json"), content, clips]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _write_files(folder: Path, fingerprint: str, main: Clip, case: Case, made: dict[str, UInt8[np.ndarray, "N H W 3"]]) -> None:
    assert main.frames is not None
    reference = main.frames[:1]
    videos = {"pose": video_files.pose_pictures(case.pose)} | {name: made[name] for name in ("nearest_pose", "warped", *MADE) if name in made}
    if case.truth is not None:
        videos["truth"] = case.truth
    rows = {"reference": reference} | {name: videos[name] for name in _SHEET_ROWS if name in videos}

    def write(into: Path) -> None:
        video_files.write_png(into / "reference.png", reference[0])
        video_files.write_png(into / "contact_sheet.png", video_files.contact_sheet(rows))
        for name, frames in videos.items():
            write_mp4(into / f"{name}.mp4", frames, case.fps)

    commit_folder(folder, write, {"fingerprint": fingerprint})
