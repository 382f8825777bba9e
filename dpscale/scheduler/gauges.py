"""What Ray exports to Prometheus of a batch; cluster/grafana/ has a dashboard of it."""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge, Histogram

from dpscale.scheduler.messages import Role
from dpscale.scheduler.records import Phase

_SECONDS = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000]


class Gauges:
    """Of one driver."""

    def __init__(self) -> None:
        self._videos = Gauge("dpscale_videos", "Videos by phase.", ("phase",))
        self._waiting = Gauge("dpscale_videos_waiting", "Videos that an actor of the role could go on with.", ("role",))
        self._actors = Gauge("dpscale_actors", "Actors by role.", ("role",))
        self._busy = Gauge("dpscale_actors_busy", "Actors at work, by role.", ("role",))
        self._seconds = Histogram("dpscale_work_seconds", "Length of slices (field) and passes (refresh).", boundaries=_SECONDS, tag_keys=("role",))
        self._failures = Counter("dpscale_failures", "Slices and passes that failed.")

    def show(self, figures: Mapping[str, float]) -> None:
        """`figures`: of status.figures."""
        for phase in Phase:
            self._videos.set(figures[f"videos/{phase.value}"], {"phase": phase.value})
        for role in Role:
            for gauge, name in ((self._waiting, "waiting"), (self._actors, "actors"), (self._busy, "busy")):
                gauge.set(figures[f"{name}/{role.value}"], {"role": role.value})

    def took(self, role: Role, seconds: float) -> None:
        self._seconds.observe(seconds, {"role": role.value})

    def failed(self) -> None:
        self._failures.inc()
