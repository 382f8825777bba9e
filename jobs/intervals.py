"""Videos with refresh intervals of their own, as the optimize stage takes them."""

from __future__ import annotations

from dataclasses import dataclass

from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError, Outcome
from dpscale.tracking.tracker import Amended, Recorder, run_key
from jobs.batch import Batch

STAGE = "optimize"


@dataclass(frozen=True)
class Ready:
    config: Config
    """With a number as interval: the middle one of the videos', by which the scheduler estimates what is left of them."""
    videos: list[VideoConfig]
    tracker: Recorder
    failed: list[Outcome]
    """Videos whose interval cannot be predicted."""


def check_intervals(config: Config) -> None:
    """Raises InputError, before anything runs, where intervals cannot be predicted."""
    if config.joint.refresh_interval == "auto":
        from dpscale.search.prediction import check_rule  # brings torch along

        check_rule(config, RunLayout.of(config))


def ready(batch: Batch) -> Ready:
    """The batch's videos with the intervals that they are made with, which are fixed from now on."""
    from dpscale.data.shards import ShardError
    from dpscale.search.prediction import with_interval

    videos, failed = [], []
    for video in batch.videos():
        try:
            videos.append(with_interval(batch.config, batch.layout, video))
        except (InputError, ShardError) as error:
            failed.append(Outcome(STAGE, batch.layout.video_name(video), 0.0, str(error)))
    own = {video: video.refresh_interval for video in videos if video.refresh_interval is not None}
    if not own:
        return Ready(batch.config, videos, batch.tracker, failed)
    middle = VideoConfig(performer=videos[0].performer, refresh_interval=sorted(own.values())[len(own) // 2])
    config = batch.config.of_video(middle) if batch.config.joint.refresh_interval == "auto" else batch.config
    params = {run_key(STAGE, batch.layout.video_name(video)): {"refresh_interval": interval} for video, interval in own.items()}
    return Ready(config, videos, Amended(batch.tracker, params), failed)
