"""A search in the page of its run: what was tried on each video, what is recommended, and the plots."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from dpscale.evaluate.record import read_record
from dpscale.report.data_uri import data_uri
from dpscale.search.space import told

PLOTS = {"response": "quality against the refresh interval", "pareto": "quality against cost"}
"""Files of a video and what they show."""


@dataclass(frozen=True)
class TrialRow:
    settings: str
    numbers: list[str]
    """quality, psnr_body, warp_error, cost, seconds: as people read them."""
    status: str
    kind: str
    """recommended | front | failed | other"""
    error: str


@dataclass(frozen=True)
class Plot:
    uri: str
    what: str


@dataclass(frozen=True)
class SearchedVideo:
    name: str
    recommended: TrialRow | None
    rows: list[TrialRow]
    plots: list[Plot]
    file: str
    """Where in the run folder the chosen settings lie, as `dpscale personalize` takes them."""
    toml: str | None
    """Its content."""


@dataclass(frozen=True)
class SearchSection:
    videos: list[SearchedVideo]
    num_trials: int
    num_failed: int
    worth: str
    """What a trial was judged by, in words."""
    rule: str | None
    """How well the interval of a new video can be predicted, in words."""


def search_section(config: Config, layout: RunLayout) -> SearchSection | None:
    """From the files that the last search left in the run folder; None where there was none."""
    found = read_record(layout.search / "result.json")
    if found is None:
        return None
    rows: list[dict[str, Any]] = found["rows"]
    videos = [_video(layout, name, list(own)) for name, own in itertools.groupby(rows, key=lambda row: row["video"])]
    return SearchSection(videos, len(rows), sum(bool(row["error"]) for row in rows), _worth(config), _rule(layout))


def _video(layout: RunLayout, name: str, rows: Sequence[Mapping[str, Any]]) -> SearchedVideo:
    shown = [_row(row) for row in rows]
    plots = [Plot(uri, f"{name}: {what}") for plot, what in PLOTS.items() if (uri := data_uri(layout.search / f"{name}-{plot}.svg"))]
    file, best = layout.search / f"{name}.toml", next((row for row in shown if row.kind == "recommended"), None)
    toml = file.read_text(encoding="utf-8") if best is not None and file.exists() else None
    return SearchedVideo(name, best, shown, plots, str(file.relative_to(layout.root)), toml)


def _row(row: Mapping[str, Any]) -> TrialRow:
    kind = "failed" if row["error"] else "recommended" if row["recommended"] else "front" if row["on_front"] else "other"
    seconds = row["field_s"] + row["refresh_s"]
    values = (row["quality"], row["psnr_body"], row["warp_error"], row["cost"], seconds or None)
    numbers = ["\N{EN DASH}" if value is None else f"{value:.2f}" for value in values]
    status = row["status"] if row["status"] != "left behind" else f"left behind at step {row['step']}"
    return TrialRow(told(row["settings"]), numbers, status, kind, row["error"])


def _worth(config: Config) -> str:
    objective = config.search.objective
    return (
        f"quality = PSNR body \N{MINUS SIGN} {objective.warp_weight:g} \N{MULTIPLICATION SIGN} warp error, on the held-out frames; "
        f"a doubling of the cost must bring {objective.price_db:g} dB. Of a trial that was left behind it is that of V_s where it was."
    )


def _rule(layout: RunLayout) -> str | None:
    found = read_record(layout.rule)
    if found is None:
        return None
    error, videos = found["leave_one_out_doublings"], len(found["videos"])
    if error["mean"] == 0:
        return f"All {videos} videos have the same recommended interval: there is nothing for a rule to learn."
    verdict = "it has learnt something" if error["rule"] < 0.9 * error["mean"] else "it has learnt nothing: one interval for all does as well"
    return (
        f"A rule from {videos} videos predicts the interval of one that is left out with an error of {error['rule']:.2f} doublings, the mean of the "
        f"others with {error['mean']:.2f}: {verdict}."
    )
