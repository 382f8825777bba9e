"""The performers and videos of a run that are still worth working on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.layout import RunLayout
from dpscale.data.types import Outcome
from dpscale.tracking.tracker import Tracker


@dataclass
class Batch:
    """What fails leaves the batch; the rest goes on."""

    config: Config
    layout: RunLayout
    tracker: Tracker
    failed: dict[str, str] = field(default_factory=dict)
    """Performer, clip (performer/drive) or video -> stage and error."""

    def record(self, outcomes: Sequence[Outcome]) -> None:
        self.failed.update({o.name: f"{o.stage}: {o.error}" for o in outcomes if not o.ok})

    def performers(self) -> list[str]:
        return [performer.name for performer in self.config.performers if performer.name not in self.failed]

    def videos(self) -> list[VideoConfig]:
        """Those whose performer, driving clip and earlier stages went well."""
        return [v for v in self.config.planned_videos() if self.failed.keys().isdisjoint(self._names(v))]

    def _names(self, video: VideoConfig) -> tuple[str, ...]:
        """Whose failure makes a video impossible."""
        return video.performer, f"{video.performer}/{video.drive}", self.layout.video_name(video)
