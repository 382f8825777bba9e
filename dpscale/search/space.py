"""From the table `search.space` to points, each a set of settings that has passed the schema. No torch, no ray."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dpscale.config import load
from dpscale.config.load import ConfigError, merged, resolved
from dpscale.config.schema import Config, SearchConfig
from dpscale.config.sources import VideoConfig
from dpscale.data.seeds import derive

Settings = Mapping[str, Any]
"""Dotted key -> value: what a trial changes in the config."""

INTERVAL = "joint.refresh_interval"
_SEARCHED = ("joint.", "field.", "finetune.", "diffusion.sampling_steps", "diffusion.guidance_scale")
_SHARED = ("joint.background_flow",)
"""Decides arrays that all trials of a video read from one place."""
CHANGES = "joint.changes"
CHANGEABLE = ("joint.flow_weight", "joint.flow_weight_to", "joint.strength_from", "joint.strength_to")
"""Read as they are needed, so that a run may go on under others."""
_BOUNDS = {"min", "max", "log"}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones where both ends are whole."""

    low: float
    high: float
    log: bool

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, part: float) -> float:
        """The number at `part` (0 .. 1) of the way, on a logarithmic scale where the range is one."""
        if self.log:
            value = math.exp(math.log(self.low) + part * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + part * (self.high - self.low)
        return min(max(round(value) if self.whole else value, self.low), self.high)


Domain = tuple[Any, ...] | Range


def domains(search: SearchConfig) -> dict[str, Domain]:
    """Dotted key -> what it may be. Raises ConfigError for a domain that is empty or is none."""
    found = dict(_flat(search.space, ""))
    if not found:
        raise ConfigError("search.space is empty: name at least one setting, for example joint.refresh_interval = [250, 500, 1000, 2000]")
    return {key: _domain(key, value) for key, value in found.items()}


def points(config: Config) -> tuple[Settings, ...] | None:
    """Every point of the space, or those that are drawn from it; None where a searcher suggests them one by one.

    Raises ConfigError, before anything runs, for whatever is wrong with the space or with a point of it."""
    search = config.search
    if config.joint.refresh_interval == "auto":
        raise ConfigError(f"{INTERVAL} = 'auto' is what a search finds a rule for: leave it out, or give it a number")
    space = domains(search)
    for key, domain in space.items():
        _check_key(config, key, domain)
    if search.stopping.kind == "pbt":
        _check_population(config, space)
    if search.searcher.kind == "optuna":
        return None
    found = tuple(_grid(space)) if search.searcher.kind == "grid" else tuple(_drawn(config, space, search.searcher.num_points))
    for settings in found:
        applied(config, settings)
    return found


def applied(config: Config, settings: Settings) -> Config:
    """The config of a trial: without a search of its own. Raises ConfigError that names the point."""
    plain = resolved(config.model_copy(update={"search": SearchConfig()}))
    for key, value in settings.items():
        plain = merged(plain, _nested(key, value))
    try:
        trial = load.check(plain)
    except ConfigError as error:
        raise ConfigError(f"search.space, at {told(settings)}: {error}") from error
    if not trial.joint.has_field:
        raise ConfigError(f"search: joint.method = {trial.joint.method} has no representation to refresh from; set joint.method = ivr")
    if trial.joint.refresh_interval == "auto":
        raise ConfigError(f"search.space.{INTERVAL}: 'auto' cannot be tried, it is what a search finds a rule for; list numbers")
    if INTERVAL in settings and trial.joint.refresh_interval > trial.joint.steps:
        raise ConfigError(
            f"search.space: {INTERVAL} = {trial.joint.refresh_interval} is longer than the run, joint.steps = {trial.joint.steps}: "
            "an interval of joint.steps means one refresh, at the end; leave out longer ones"
        )
    return trial


def searched_videos(config: Config) -> tuple[VideoConfig, ...]:
    """Those whose result can be compared with held-out frames. Raises ConfigError where there are none, one has its interval
    already, or trials would have no GPU."""
    own = {drive.name for drive in config.drives if drive.kind == "self"}
    videos = tuple(video for video in config.planned_videos() if video.drive in own)
    if not videos:
        raise ConfigError("a search compares with held-out frames: add a drive of kind 'self', and videos that it drives")
    for video in videos:
        if video.refresh_interval is not None:
            raise ConfigError(f"videos: {video.performer!r} has a refresh_interval of its own, which a search would not change; leave it out")
    on_gpus = config.scheduler.field_gpus > 0 or config.scheduler.refresh_gpus > 0
    if on_gpus != (config.search.trial_gpus > 0):
        raise ConfigError(
            f"search.trial_gpus = {config.search.trial_gpus:g}, but scheduler.field_gpus = {config.scheduler.field_gpus:g} and "
            f"refresh_gpus = {config.scheduler.refresh_gpus:g}: trials compute where the videos of the run would; set all of them, or none"
        )
    return videos


def told(settings: Settings) -> str:
    """As a person reads it: "joint.refresh_interval = 500, joint.flow_weight = 0.7; from step 801: flow_weight = 0.84"."""
    texts = [", ".join(f"{key} = {_number(value)}" for key, value in settings.items() if key != CHANGES)]
    for change in settings.get(CHANGES, ()):
        texts.append(f"from step {change['from_step']}: " + ", ".join(f"{k} = {_number(v)}" for k, v in change.items() if k != "from_step"))
    return "; ".join(texts)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _check_key(config: Config, key: str, domain: Domain) -> None:
    if not key.startswith(_SEARCHED) or key in _SHARED:
        applied(config, {key: _values(domain)[0]})  # a typo is told as such
        raise ConfigError(f"search.space.{key}: is not searched; settings of {', '.join(part.rstrip('.') for part in _SEARCHED)} are")
    if key.startswith("finetune.") and config.search.searcher.kind == "optuna":
        raise ConfigError(f"search.space.{key}: models are finetuned before the trials; set search.searcher.kind = grid or random")
    if isinstance(domain, Range) and config.search.searcher.kind == "grid":
        raise ConfigError(f"search.space.{key}: a grid needs a list of values; list them, or set search.searcher.kind = random or optuna")
    if isinstance(domain, Range) or config.search.searcher.kind == "optuna":  # of others every point is checked, as a whole
        for value in _values(domain):
            applied(config, {key: value})


def _check_population(config: Config, space: Mapping[str, Domain]) -> None:
    for key in space:
        if key not in CHANGEABLE:
            raise ConfigError(f"search.space.{key}: cannot change on the way; search.stopping.kind = pbt takes {', '.join(CHANGEABLE)} only")
    if config.search.searcher.kind == "optuna":
        raise ConfigError("search.stopping.kind = pbt makes its points from those of others: set search.searcher.kind = random or grid")
    if config.joint.changes or config.joint.stop_l1 is not None:
        raise ConfigError("search.stopping.kind = pbt takes whole runs, whose settings it changes itself: leave out joint.changes and joint.stop_l1")


def _values(domain: Domain) -> tuple[Any, ...]:
    """All values, or the ends of a range."""
    return (domain.low, domain.high) if isinstance(domain, Range) else domain


def _grid(space: Mapping[str, Domain]) -> Iterator[Settings]:
    for values in itertools.product(*(_values(domain) for domain in space.values())):
        yield dict(zip(space, values, strict=True))


def _drawn(config: Config, space: Mapping[str, Domain], num_points: int) -> Iterator[Settings]:
    for number in range(num_points):
        draw = random.Random(derive(config.run.seed, "search", number))
        yield {key: domain.at(draw.random()) if isinstance(domain, Range) else draw.choice(domain) for key, domain in space.items()}


def _flat(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping) and not value.keys() & _BOUNDS:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _domain(key: str, value: Any) -> Domain:
    if isinstance(value, list | tuple) and value:
        if len({repr(item) for item in value}) < len(value):
            raise ConfigError(f"search.space.{key} = {value}: lists a value twice")
        return tuple(value)
    if isinstance(value, list | tuple):
        raise ConfigError(f"search.space.{key}: the list is empty; give it at least one value")
    if isinstance(value, Mapping):
        return _range(key, value)
    raise ConfigError(f"search.space.{key} = {value!r}: must be a list of values, or a table of min and max (and log = true)")


def _range(key: str, table: Mapping[str, Any]) -> Range:
    unknown, missing = sorted(table.keys() - _BOUNDS), sorted({"min", "max"} - table.keys())
    if unknown or missing:
        what = f"{unknown[0]!r} is unknown" if unknown else f"{missing[0]} is missing"
        raise ConfigError(f"search.space.{key}: {what}; a range has min, max and perhaps log = true")
    low, high, log = table["min"], table["max"], table.get("log", False)
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high)) or not isinstance(log, bool):
        raise ConfigError(f"search.space.{key}: min and max must be numbers, log true or false")
    if low >= high:
        raise ConfigError(f"search.space.{key}: the range from min = {low} to max = {high} is empty; min must be below max")
    if log and low <= 0:
        raise ConfigError(f"search.space.{key}: log = true needs min above 0, not {low}")
    return Range(low, high, log)


def _nested(key: str, value: Any) -> dict[str, Any]:
    nested: Any = value
    for name in reversed(key.split(".")):
        nested = {name: nested}
    return nested
