"""Videos with refresh intervals of their own, as the optimize stage takes them."""

from __future__ import annotations

from dataclasses import dataclass

from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError, Outcome
from jobs.batch import Batch

STAGE = "optimize"


@dataclass(frozen=True)
class Ready:
    videos: list[VideoConfig]
    """With the intervals that they are made with."""
    failed: list[Outcome]
    """Videos whose interval cannot be predicted."""


def check_intervals(config: Config) -> None:
    """Raises InputError, before anything runs, where intervals cannot be predicted."""
    if config.joint.refresh_interval == "auto":
        from dpscale.search.prediction import check_rule  # brings torch along

        check_rule(config, RunLayout.of(config))


def ready(batch: Batch) -> Ready:
    """The batch's videos; intervals that are predicted are fixed from now on."""
    from dpscale.data.shards import ShardError
    from dpscale.search.prediction import with_interval

    videos, failed = [], []
    for video in batch.videos():
        try:
            videos.append(with_interval(batch.config, batch.layout, video))
        except (InputError, ShardError) as error:
            failed.append(Outcome(STAGE, batch.layout.video_name(video), 0.0, str(error)))
    return Ready(videos, failed)
