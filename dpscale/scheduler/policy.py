"""Who is served first, by `scheduler.kind`. Policies decide; they change nothing. A higher priority comes first under each of them."""

from __future__ import annotations

import math
from collections.abc import Callable

from dpscale.config.schema import SchedulerConfig
from dpscale.scheduler.lines import FairShares, Line, Ordered
from dpscale.scheduler.messages import Role
from dpscale.scheduler.records import VideoRecord

Lines = dict[Role, Line]


def fifo(settings: SchedulerConfig) -> Lines:
    """In the order of submission."""
    return {role: Ordered(lambda video: (-video.priority,)) for role in Role}


def critical_path(settings: SchedulerConfig) -> Lines:
    """The diffusion model, the bottleneck, serves the video with most of its own work left; field workers serve the shortest
    stretch to the next refresh, so that the diffusion model always finds something to do."""
    return {
        Role.FIELD: Ordered(lambda video: (-video.priority, *_shortest_stretch(video))),
        Role.REFRESH: Ordered(lambda video: (-video.priority, *_most_work_left(video))),
    }


def fair(settings: SchedulerConfig) -> Lines:
    """Tenants share both kinds of actors by `scheduler.tenant_weights`; of one tenant's videos: priority, then deadline, then critical path."""

    def slice_cost(video: VideoRecord) -> float:
        return max(1, min(settings.slice_steps, video.steps_to_refresh))

    def refresh_cost(video: VideoRecord) -> float:
        return video.num_frames

    weights = settings.tenant_weights
    return {
        Role.FIELD: FairShares(lambda video: (-video.priority, _deadline(video), *_shortest_stretch(video)), slice_cost, weights),
        Role.REFRESH: FairShares(lambda video: (-video.priority, _deadline(video), *_most_work_left(video)), refresh_cost, weights),
    }


def _shortest_stretch(video: VideoRecord) -> tuple[float, ...]:
    return (video.steps_to_refresh, -video.diffusion_work_left)


def _most_work_left(video: VideoRecord) -> tuple[float, ...]:
    return (-video.diffusion_work_left, -video.steps_left)


def _deadline(video: VideoRecord) -> float:
    return math.inf if video.deadline_s is None else video.deadline_s


POLICIES: dict[str, Callable[[SchedulerConfig], Lines]] = {"fifo": fifo, "critical_path": critical_path, "fair": fair}


def make_policy(settings: SchedulerConfig) -> Lines:
    """A line for each role, without anybody in it."""
    return POLICIES[settings.kind](settings)
