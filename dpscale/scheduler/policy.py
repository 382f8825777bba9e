"""Who is served first, by `scheduler.kind`. Policies decide; they change nothing."""

from __future__ import annotations

from dataclasses import dataclass

from dpscale.config.schema import SchedulerConfig
from dpscale.scheduler.state import Policy, VideoRecord


@dataclass(frozen=True)
class Fifo:
    """In the order of submission."""

    def slice_key(self, video: VideoRecord) -> tuple[float, ...]:
        return (video.order,)

    def refresh_key(self, video: VideoRecord) -> tuple[float, ...]:
        return (video.order,)


@dataclass(frozen=True)
class CriticalPath:
    """The diffusion model, the bottleneck, serves the video with most of its own work left; field workers serve the shortest
    stretch to the next refresh, so that the diffusion model always finds something to do."""

    def slice_key(self, video: VideoRecord) -> tuple[float, ...]:
        return (steps_to_refresh(video), -diffusion_work_left(video))

    def refresh_key(self, video: VideoRecord) -> tuple[float, ...]:
        return (-diffusion_work_left(video), -video.steps_left)


def diffusion_work_left(video: VideoRecord) -> int:
    """Frames that the diffusion model has still to make."""
    return video.refreshes_left * video.num_frames


def steps_to_refresh(video: VideoRecord) -> int:
    """Field steps until the next refresh falls due; the first pass follows the warm-up."""
    work = video.work
    due = work.warm_up_steps + min(video.refreshes_done * work.refresh_interval, work.steps)
    return max(0, due - video.steps_done)


POLICIES: dict[str, type[Policy]] = {"fifo": Fifo, "critical_path": CriticalPath}


def make_policy(settings: SchedulerConfig) -> Policy:
    return POLICIES[settings.kind]()
