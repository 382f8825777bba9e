"""What a run consists of, and which pieces of it are finished. Looks at files only: no torch, no ray."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dpscale.config.schema import Config
from dpscale.data.checkpoint import marker_of
from dpscale.data.layout import RunLayout

STAGES = ("preprocess", "finetune", "optimize", "evaluate", "report")


@dataclass(frozen=True)
class Piece:
    stage: str
    name: str
    finished: bool


def pieces(config: Config, layout: RunLayout) -> list[Piece]:
    """Every piece of the run, stage by stage."""
    return [*_clips(config, layout), *_performers(config, layout), *_videos(config, layout)]


def _clips(config: Config, layout: RunLayout) -> Iterator[Piece]:
    kinds = {drive.name: drive.kind for drive in config.drives}
    videos = config.planned_videos()
    for performer in config.performers:
        for clip in ["main", *(v.drive for v in videos if v.performer == performer.name and kinds[v.drive] != "self")]:
            yield Piece("preprocess", f"{performer.name}/{clip}", marker_of(layout.shard(performer.name, clip)) is not None)


def _performers(config: Config, layout: RunLayout) -> Iterator[Piece]:
    for performer in config.performers:
        yield Piece("finetune", performer.name, marker_of(layout.finetune(performer.name)) is not None)


def _videos(config: Config, layout: RunLayout) -> Iterator[Piece]:
    for video in config.planned_videos():
        yield Piece("optimize", layout.video_name(video), marker_of(layout.joint(video) / "result") is not None)
    for video in config.planned_videos():
        yield Piece("evaluate", layout.video_name(video), layout.metrics(video).exists())
