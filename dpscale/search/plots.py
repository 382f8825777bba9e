"""Plots of a search as SVG: each a text that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from dpscale.search.record import Chosen, Row
from dpscale.search.space import INTERVAL

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 460, 300, 60, 45, 35, 15
_GREY, _BLUE, _RED = "#999999", "#1f5fa8", "#c0392b"


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    colour: str
    hollow: bool
    """The trial was left behind: y is of V_s where it was."""
    label: str


def pareto_plot(video: str, rows: Sequence[Row], choice: Chosen) -> str:
    """Quality against cost; the front joined, the recommended point red."""
    points = [_point(row, row.cost or 0.0, choice) for row in rows if row.quality is not None]
    front = [(row.cost or 0.0, row.quality or 0.0) for point in choice.front for row in rows if row.point == point]
    return _plot(f"{video}: quality against cost", "denoiser calls, field steps at their worth (log)", points, front)


def response_plot(video: str, rows: Sequence[Row], choice: Chosen) -> str:
    """Quality against the refresh interval."""
    points = [_point(row, row.settings[INTERVAL], choice) for row in rows if row.quality is not None and INTERVAL in row.settings]
    return _plot(f"{video}: quality against the refresh interval", "field steps between refreshes (log)", points, [])


def _point(row: Row, x: float, choice: Chosen) -> Point:
    best = row.point == choice.recommended
    colour = _RED if best else _BLUE if row.point in choice.front else _GREY
    return Point(x, row.quality or 0.0, colour, not row.ended, ", ".join(f"{key} = {value}" for key, value in row.settings.items()))


def _plot(title: str, x_label: str, points: Sequence[Point], line: Sequence[tuple[float, float]]) -> str:
    across = _Scale([math.log10(point.x) for point in points], _LEFT, _WIDTH - _RIGHT)
    up = _Scale([point.y for point in points], _HEIGHT - _BOTTOM, _TOP)

    def at(x: float, y: float) -> tuple[float, float]:
        return across(math.log10(x)), up(y)

    parts = [_text(_WIDTH / 2, 18, title, "middle"), _text(_WIDTH / 2, _HEIGHT - 8, x_label, "middle"), _text(8, _TOP - 8, "dB", "start")]
    parts += [_text(_LEFT - 6, up(y) + 4, f"{y:.2f}", "end") for y in up.ends]
    parts += [_text(across(math.log10(x)), _HEIGHT - _BOTTOM + 16, f"{x:g}", "middle") for x in sorted({round(point.x, 1) for point in points})]
    corner = f"{_LEFT},{_TOP} {_LEFT},{_HEIGHT - _BOTTOM} {_WIDTH - _RIGHT},{_HEIGHT - _BOTTOM}"
    parts.append(f'<polyline points="{corner}" fill="none" stroke="{_GREY}"/>')
    joined = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in line)
    parts.append(f'<polyline points="{joined}" fill="none" stroke="{_BLUE}"/>')
    for point in points:
        x, y = at(point.x, point.y)
        fill = "white" if point.hollow else point.colour
        hint = f"<title>{escape(point.label)}: {point.y:.2f} dB</title>"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="{point.colour}" stroke-width="2">{hint}</circle>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="11">'
    return "\n".join([head, *parts, "</svg>\n"])


class _Scale:
    """From values to px, with a little room at both ends."""

    def __init__(self, values: Sequence[float], low_px: float, high_px: float) -> None:
        low, high = min(values, default=0.0), max(values, default=1.0)
        self.ends = sorted({low, high})
        room = 0.08 * (high - low) or 1.0
        self._low, self._span, self._from, self._to = low - room, high - low + 2 * room, low_px, high_px

    def __call__(self, value: float) -> float:
        return self._from + (value - self._low) / self._span * (self._to - self._from)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
