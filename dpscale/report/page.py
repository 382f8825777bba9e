"""Metric records and videos of a run -> one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.checkpoint import write_atomically
from dpscale.data.layout import RunLayout
from dpscale.evaluate.record import METHODS, METRICS, Metric, method_name, read_record
from dpscale.report.data_uri import data_uri
from dpscale.report.search_section import search_section

MAX_PLAYERS = 40
"""Videos whose players are embedded; further ones have their table only, or the page would not open."""

UNFINISHED = "not finished; run the same command again"

PLAYERS = {
    "pose": "Driving pose",
    "truth": "Truth",
    "wo_opt": "w/o Opt.",
    "ivr_opt": "Result",
    "field": "Field V_s",
    "nearest_pose": "Nearest pose",
    "warped": "Warped frames",
}
"""Files of a video and their captions, in the order on the page."""

HEADLINE_METRICS = ("psnr", "psnr_body", "ssim", "warp_error", "keypoint_error_px")
"""What the overview shows of each video."""


@dataclass(frozen=True)
class Cell:
    text: str
    best: bool = False


@dataclass(frozen=True)
class Row:
    label: str
    cells: list[Cell]
    kind: str
    """result | method | floor"""


@dataclass(frozen=True)
class Player:
    name: str
    caption: str
    uri: str


@dataclass(frozen=True)
class VideoSection:
    anchor: str
    title: str
    num_frames: int
    fps: float
    facts: list[str]
    metrics: list[Metric]
    rows: list[Row]
    reference: str | None
    players: list[Player]
    contact_sheet: str | None
    verdict: list[str]
    """The result against the first pass, in words."""
    error: str | None


@dataclass(frozen=True)
class OverviewRow:
    anchor: str
    title: str
    changes: list[tuple[str, str, str]]
    """Per headline metric: the result's value, its change from the first pass, and better | worse | same | none."""


@dataclass(frozen=True)
class StageTime:
    name: str
    text: str
    percent: float


def write_report(config: Config, layout: RunLayout, summary: Mapping[str, Any] | None = None) -> Path:
    """Writes ``layout.report`` from the records and videos that are there; returns its path.

    `summary` (as in summary.json: stages_s, total_s, commit, failed) is read from the run folder where it is not given."""
    summary = summary if summary is not None else read_record(layout.summary) or {}
    page = render(config, layout, summary)
    write_atomically(layout.report, lambda path: path.write_text(page, encoding="utf-8"))
    return layout.report


def render(config: Config, layout: RunLayout, summary: Mapping[str, Any]) -> str:
    videos = config.planned_videos()
    records = [read_record(layout.metrics(video)) for video in videos]
    failed = dict(summary.get("failed", {}))
    sections = [
        _section(config, layout, video, record, failed, i < MAX_PLAYERS) for i, (video, record) in enumerate(zip(videos, records, strict=True))
    ]
    search = search_section(config, layout)
    # where settings are searched for, making the videos is another command's work
    shown = [section for section in sections if search is None or section.error != UNFINISHED]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2").render(
        run=config.run.name,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=summary.get("commit"),
        total=duration(summary["total_s"]) if "total_s" in summary else None,
        num_performers=len(config.performers),
        num_finished=sum(record is not None for record in records),
        sections=shown,
        search=search,
        headline=[metric for metric in METRICS if metric.key in HEADLINE_METRICS],
        overview=[_overview_row(section, record) for section, record in zip(sections, records, strict=True) if record is not None],
        failed=failed,
        stages=_stage_times(summary.get("stages_s", {})),
        config_json=json.dumps(config.model_dump(mode="json"), indent=2),
        metrics=METRICS,
        max_players=MAX_PLAYERS,
    )


def _section(
    config: Config, layout: RunLayout, video: VideoConfig, record: Mapping[str, Any] | None, failed: Mapping[str, str], with_players: bool
) -> VideoSection:
    name, folder = layout.video_name(video), layout.videos(video)
    error = next((failed[key] for key in (name, f"{video.performer}/{video.drive}", video.performer) if key in failed), None)
    title = f"{video.performer}, held-out part" if record and record["has_truth"] else f"{video.performer} doing {video.drive}"
    if record is None:
        return VideoSection(name, title, 0, 0.0, [], [], [], None, [], None, [], error or UNFINISHED)
    metrics = [metric for metric in METRICS if any(metric.key in values for values in record["methods"].values())]
    files = folder if with_players else Path()
    players = [Player(key, caption, uri) for key, caption in PLAYERS.items() if (uri := data_uri(files / f"{key}.mp4"))]
    reference, sheet = data_uri(files / "reference.png"), data_uri(files / "contact_sheet.png")
    return VideoSection(
        name, title, record["num_frames"], record["fps"], [*_facts(record), *_own_interval(config, layout, video)], metrics, _rows(record, metrics),
        reference, players, sheet, _verdict(record), error,
    )  # fmt: skip


def _facts(record: Mapping[str, Any]) -> list[str]:
    trained = f"trained on {record['num_train']} frames"
    return [
        f"{record['num_frames']} frames",
        f"{record['width_px']} \N{MULTIPLICATION SIGN} {record['height_px']} px",
        f"{record['fps']:g} frames/s",
        trained,
    ]


def _own_interval(config: Config, layout: RunLayout, video: VideoConfig) -> list[str]:
    """The refresh interval of a video that has one of its own."""
    if config.of_video(video).joint.refresh_interval == "auto":
        fixed = read_record(layout.interval(video))
        return [f"a refresh every {fixed['refresh_interval']} steps, as predicted"] if fixed else []
    return [] if video.refresh_interval is None else [f"a refresh every {video.refresh_interval} steps"]


def _kind(method: str) -> str:
    return "result" if method == "ivr_opt" else "method"


def _rows(record: Mapping[str, Any], metrics: list[Metric]) -> list[Row]:
    methods = {key: record["methods"][key] for key in METHODS if key in record["methods"]}
    best = {metric.key: best_value(metric, [values.get(metric.key) for values in methods.values()]) for metric in metrics}
    rows = [
        Row(method_name(record, key), [_cell(metric, values.get(metric.key), best[metric.key]) for metric in metrics], _kind(key))
        for key, values in methods.items()
    ]
    if record["floor"]:
        rows.append(Row("The truth itself", [Cell(number(metric, record["floor"].get(metric.key))) for metric in metrics], "floor"))
    return rows


def _cell(metric: Metric, value: float | None, best: float | None) -> Cell:
    return Cell(number(metric, value), value is not None and value == best)


def best_value(metric: Metric, values: list[float | None]) -> float | None:
    """The best of the values that there are; None if there is none, or all are the same: then nobody wins."""
    known = [value for value in values if value is not None]
    if len(set(known)) < 2:
        return None
    return max(known) if metric.better == "higher" else min(known)


def number(metric: Metric, value: float | None) -> str:
    """As people read it; an en dash where there is no value."""
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    if metric.key == "l1":
        return f"{value:.2e}".replace("e-0", "e-")
    if metric.key == "keypoint_detected":
        return f"{value:.0%}"
    return f"{value:.3f}" if metric.key == "ssim" else f"{value:.2f}"


def change(metric: Metric, result: float | None, before: float | None) -> tuple[str, str]:
    """The difference as text, and whether it is better | worse | same | none."""
    if result is None or before is None:
        return "", "none"
    text = number(metric, abs(result - before))
    if text.strip("0.") == "":
        return "±0", "same"
    better = (result > before) == (metric.better == "higher")
    return ("+" if result > before else "\N{MINUS SIGN}") + text, "better" if better else "worse"


def _overview_row(section: VideoSection, record: Mapping[str, Any]) -> OverviewRow:
    changes = []
    for metric in METRICS:
        if metric.key in HEADLINE_METRICS:
            result, before = (record["methods"][method].get(metric.key) for method in ("ivr_opt", "wo_opt"))
            changes.append((number(metric, result), *change(metric, result, before)))
    return OverviewRow(section.anchor, section.title, changes)


def _verdict(record: Mapping[str, Any]) -> list[str]:
    """What the optimisation changed, for the two metrics that it is for."""
    sentences = []
    for metric in METRICS:
        result, before = (record["methods"][method].get(metric.key) for method in ("ivr_opt", "wo_opt"))
        text, verdict = change(metric, result, before)
        if metric.key in ("warp_error", "psnr_body") and verdict != "none":
            unit = "" if verdict == "same" else f" {metric.unit}"
            sentences.append(f"{metric.label} {text}{unit} against the first pass ({verdict})")
    return sentences


def _stage_times(stages_s: Mapping[str, float]) -> list[StageTime]:
    longest = max(stages_s.values(), default=0.0) or 1.0
    return [StageTime(name, duration(seconds), 100 * seconds / longest) for name, seconds in stages_s.items()]


def duration(seconds: float) -> str:
    """12.3 s, 4 min 05 s, 2 h 07 min."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
