"""What a search has found, as rows and as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.config.toml import to_toml
from dpscale.data.checkpoint import write_atomically, write_json
from dpscale.data.layout import RunLayout
from dpscale.search.pareto import Tried, front, recommended
from dpscale.search.space import INTERVAL, applied


@dataclass(frozen=True)
class Row:
    """One point of the space on one video."""

    video: str
    point: int
    settings: dict[str, Any]
    error: str = ""
    """Why it failed; empty: it did not."""
    quality: float | None = None
    """Of its result; of a trial that was left behind, of V_s where it was."""
    psnr_body: float | None = None
    warp_error: float | None = None
    cost: float | None = None
    """Of the whole trial alone, in denoiser calls, field steps at their worth."""
    step: int | None = None
    """How far it came."""
    ended: bool = False
    """At its end; else it was left behind at `step`."""
    operations: int = 0
    field_s: float = 0.0
    """Seconds of field steps on its way to `step`, those that others took for it included: what it costs alone."""
    refresh_s: float = 0.0
    """Likewise of refreshes."""
    computed_steps: int = 0
    """Field steps that its own processes took."""
    computed_refreshes: int = 0
    wall_s: float = 0.0
    MEASURED: ClassVar = ("quality", "psnr_body", "warp_error", "cost", "step", "ended", "operations", "field_s", "refresh_s")

    @property
    def status(self) -> Literal["failed", "finished", "left behind"]:
        if self.error:
            return "failed"
        return "finished" if self.ended else "left behind"


@dataclass(frozen=True)
class Chosen:
    """What the rows of one video say."""

    front: list[int]
    """Points that nothing beats, the cheapest first."""
    recommended: int | None
    """Point with the greatest quality after its price; None: no trial finished."""


def chosen(rows: Sequence[Row], price_db: float) -> dict[str, Chosen]:
    """Per video. Only finished trials count: of others the result is not known."""
    found = {}
    for video in dict.fromkeys(row.video for row in rows):
        ended = [row for row in rows if row.video == video and row.status == "finished"]
        tried = [Tried(row.quality or 0.0, row.cost or 0.0) for row in ended]
        best = recommended(tried, price_db)
        found[video] = Chosen([ended[n].point for n in front(tried)], None if best is None else ended[best].point)
    return found


def as_json(rows: Sequence[Row], choice: dict[str, Chosen]) -> dict[str, Any]:
    """The result file."""
    told = []
    for row in rows:
        best = choice[row.video]
        told.append({**asdict(row), "status": row.status, "on_front": row.point in best.front, "recommended": row.point == best.recommended})
    return {"rows": told, "recommended": {video: one.recommended for video, one in choice.items()}}


def write_found(config: Config, layout: RunLayout, rows: Sequence[Row], choice: dict[str, Chosen]) -> list[Path]:
    """Writes search/result.json, and per video the chosen settings as a config of that video, and plots: quality against cost, and
    against the interval where that was searched. Returns all paths."""
    from dpscale.search.plots import pareto_plot, response_plot  # which draws rows

    files = [layout.search / "result.json"]
    write_json(files[0], as_json(rows, choice))
    for video in (one for one in config.planned_videos() if layout.video_name(one) in choice):
        name = layout.video_name(video)
        own, best = [row for row in rows if row.video == name], choice[name]
        texts = {f"{name}-pareto.svg": pareto_plot(name, own, best)}
        if any(INTERVAL in row.settings for row in own):
            texts[f"{name}-response.svg"] = response_plot(name, own, best)
        texts |= {f"{name}.toml": chosen_config(config, video, row) for row in own if row.point == best.recommended}
        for file, text in texts.items():
            files.append(layout.search / file)
            write_atomically(files[-1], lambda path, text=text: path.write_text(text, encoding="utf-8"))
    return files


def chosen_config(config: Config, video: VideoConfig, row: Row) -> str:
    """TOML for `dpscale personalize`: the run's config with a row's settings, for its video alone, in a run folder of its own."""
    own = applied(config, row.settings)
    run = own.run.model_copy(update={"name": f"{own.run.name}-{row.video}"[:100]})
    performers = tuple(performer for performer in own.performers if performer.name == video.performer)
    return to_toml(own.model_copy(update={"run": run, "performers": performers, "videos": (video,)}))
