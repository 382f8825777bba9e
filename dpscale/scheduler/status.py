"""Where a batch of videos stands, for people: what `dpscale status` shows and the driver writes down."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from dpscale.scheduler.messages import Role
from dpscale.scheduler.records import Phase, VideoRecord
from dpscale.scheduler.state import Scheduler

MOST_VIDEOS = 1000
"""Of which a status speaks one by one."""

_INTERESTING = [Phase.OPTIMISING, Phase.REFRESHING, Phase.FAILED, Phase.PAUSED, Phase.REFRESH_WANTED, Phase.PENDING, Phase.CANCELLED, Phase.DONE]


@dataclass
class Rates:
    """What work took so far, so that what is left can be told in seconds."""

    amount: dict[Role, float] = field(default_factory=lambda: dict.fromkeys(Role, 0.0))
    """Field steps; frames of the diffusion model."""
    seconds: dict[Role, float] = field(default_factory=lambda: dict.fromkeys(Role, 0.0))

    def add(self, role: Role, amount: float, seconds: float) -> None:
        self.amount[role] += amount
        self.seconds[role] += seconds

    def left_s(self, video: VideoRecord) -> dict[Role, float] | None:
        """Seconds of each role's work that a video needs yet; None before anything was measured."""
        if min(self.amount.values()) == 0:
            return None
        each = {role: self.seconds[role] / self.amount[role] for role in Role}
        return {Role.FIELD: video.steps_left * each[Role.FIELD], Role.REFRESH: video.diffusion_work_left * each[Role.REFRESH]}


def status(scheduler: Scheduler, rates: Rates, losses: dict[str, float], started_s: float, now_s: float) -> dict[str, Any]:
    """As JSON. `losses`: of each video the newest |V_s - V_p|, 0 .. 255 grey levels."""
    videos = sorted(scheduler.videos.values(), key=lambda video: (_INTERESTING.index(video.phase), video.order))
    return {
        "updated_s": round(now_s, 1),
        "elapsed_s": round(now_s - started_s, 1),
        "eta_s": _eta_s(scheduler, rates),
        "phases": dict(Counter(video.phase.value for video in videos)),
        "waiting": {role.value: scheduler.num_waiting(role) for role in Role},
        "actors": {role.value: _actors(scheduler, role) for role in Role},
        "videos": [_video(video, rates, losses.get(video.name)) for video in videos[:MOST_VIDEOS]],
        "num_videos": len(videos),
    }


def figures(scheduler: Scheduler) -> dict[str, float]:
    """How full it is, for curves: `videos/PHASE`, and of each role `waiting/ROLE` (videos), `actors/ROLE`, `busy/ROLE`, `together/ROLE` (videos at a
    busy actor: of refreshes those that share its calls)."""
    phases = Counter(video.phase for video in scheduler.videos.values())
    found: dict[str, float] = {f"videos/{phase.value}": phases[phase] for phase in Phase}
    for role in Role:
        actors = _actors(scheduler, role)
        found |= {f"waiting/{role.value}": scheduler.num_waiting(role), f"actors/{role.value}": actors["all"], f"busy/{role.value}": actors["busy"]}
        found[f"together/{role.value}"] = actors["videos"] / max(1, actors["busy"])
    return found


def _actors(scheduler: Scheduler, role: Role) -> dict[str, int]:
    at_work = [video.under_way[role].actor for video in scheduler.videos.values() if role in video.under_way]
    return {"videos": len(at_work), "busy": len(set(at_work)), "all": scheduler.num_actors(role)}


def _eta_s(scheduler: Scheduler, rates: Rates) -> float | None:
    """No course can be shorter: the work of each role on all of its actors, and the video with most left alone."""
    lefts = [rates.left_s(video) for video in scheduler.videos.values() if video.ended is None]
    known = [left for left in lefts if left is not None]
    if len(known) < len(lefts):
        return None
    actors = {role: max(1, _actors(scheduler, role)["all"]) for role in Role}
    shared = max(sum(left[role] for left in known) / actors[role] for role in Role)
    return round(max(shared, *(sum(left.values()) for left in known)) if known else 0.0, 1)


def _video(video: VideoRecord, rates: Rates, loss: float | None) -> dict[str, Any]:
    left = rates.left_s(video)
    return {
        "name": video.name,
        "tenant": video.tenant,
        "priority": video.priority,
        "phase": video.phase.value,
        "steps": [video.steps_done, video.work.warm_up_steps + video.work.steps],
        "refreshes": [video.refreshes_done, video.work.num_refreshes],
        "num_frames": video.num_frames,
        "failures": video.failures,
        "l1": None if loss is None else round(loss, 3),
        "left_s": None if left is None or video.ended is not None else round(sum(left.values()), 1),
        "error": video.error,
    }
