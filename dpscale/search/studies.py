"""Points that Optuna's multi-objective TPE suggests, quality against cost: a study per video. No ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna

from dpscale.data.seeds import derive
from dpscale.search.halving import Stretch
from dpscale.search.space import Domain, Range

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass
class _Study:
    """The study of one video, and its trials that run."""

    study: optuna.Study
    asked: int = 0
    running: dict[int, optuna.trial.Trial] = field(default_factory=dict)


class Studies:
    """Hands out points and takes in what they are worth. The same order of events gives the same points: they follow from the seed."""

    def __init__(self, videos: Sequence[str], space: Mapping[str, Domain], num_points: int, seed: int) -> None:
        self._space, self._num_points = space, num_points
        self._studies = {video: _Study(_new_study(derive(seed, "search", video) % 2**32)) for video in videos}

    @property
    def exhausted(self) -> bool:
        """Whether every point has been handed out and taken in."""
        return all(one.asked >= self._num_points and not one.running for one in self._studies.values())

    def next(self) -> Stretch | None:
        """The next point, of the video with the fewest at work. None: all are handed out."""
        ready = [video for video, one in self._studies.items() if one.asked < self._num_points]
        if not ready:
            return None
        video = min(ready, key=lambda name: len(self._studies[name].running))
        return self.take(video, self._studies[video].asked)

    def take(self, video: str, point: int) -> Stretch:
        """Hands out a video's next point, whose number must be `point`."""
        one = self._studies[video]
        assert point == one.asked, f"{video}: point {one.asked} is next, not {point}"
        trial = one.study.ask({key: _distribution(domain) for key, domain in self._space.items()})
        one.running[point], one.asked = trial, point + 1
        return Stretch(video, point, 0, {key: _value(domain, trial.params[key]) for key, domain in self._space.items()})

    def done(self, stretch: Stretch, quality: float | None, cost: float) -> None:
        """What a point is worth; None: it failed."""
        one = self._studies[stretch.video]
        trial = one.running.pop(stretch.point)
        if quality is None or math.isnan(quality):
            one.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            one.study.tell(trial, [quality, cost])


def _new_study(seed: int) -> optuna.Study:
    return optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True))


def _distribution(domain: Domain) -> optuna.distributions.BaseDistribution:
    """Of a list the place in it, so that numbers keep their order and values may be of any kind."""
    if not isinstance(domain, Range):
        places = len(domain)
        return (
            optuna.distributions.IntDistribution(0, places - 1)
            if _are_numbers(domain)
            else optuna.distributions.CategoricalDistribution(range(places))
        )
    if domain.whole:
        return optuna.distributions.IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return optuna.distributions.FloatDistribution(domain.low, domain.high, log=domain.log)


def _value(domain: Domain, suggested: Any) -> Any:
    if isinstance(domain, Range):
        return suggested
    return (sorted(domain) if _are_numbers(domain) else domain)[suggested]


def _are_numbers(domain: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in domain)
