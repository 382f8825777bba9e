"""`dpscale search`: which refresh interval, and which other settings, suit each video."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from dpscale.config.schema import Config
from dpscale.data.checkpoint import write_json
from dpscale.data.layout import RunLayout
from dpscale.search.space import points, searched_videos, told
from dpscale.tracking.tracker import BATCH
from jobs.cluster_session import ray_session
from jobs.pipeline import run_stages
from jobs.run_folder import claimed
from jobs.stage_times import measured
from jobs.summary import earlier_failures, summary
from jobs.tracking import tracked


def run(config: Config) -> int:
    """Personalises the performers first, where that is not done. 1 if a performer or a trial failed, else 0."""
    videos, found = searched_videos(config), points(config)
    layout = RunLayout.of(config)
    failed = run_stages(config, ["preprocess", "finetune"])
    from dpscale.report.page import write_report
    from dpscale.search.on_ray import search
    from dpscale.search.record import Row, chosen, write_found
    from dpscale.search.rule import rule_of

    broken: list[Row] = []
    with claimed(config, layout):
        with ray_session(config.ray), tracked(config, layout, broken) as tracker, measured(layout, "search"):
            rows = search(config, layout, videos, found, tracker)
            broken += [row for row in rows if row.error]
            choice = chosen(rows, config.search.objective.price_db)
            for file in filter(None, [*write_found(config, layout, rows, choice), rule_of(config, layout, rows, choice)]):
                tracker.artifact(BATCH, file, "search")
        told_now = summary(config, layout, earlier_failures(layout, []))
        write_report(config, layout, told_now)
        write_json(layout.summary, told_now)
    table = Table("video", "settings", "quality dB", "cost", "status", "", caption="quality of a trial left behind: of V_s, where it was")
    for row in rows:
        numbers = ("" if value is None else f"{value:.2f}" for value in (row.quality, row.cost))
        table.add_row(row.video, told(row.settings), *numbers, row.error or row.status, "*" if row.point == choice[row.video].recommended else "")
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    print(f"* recommended; settings for `dpscale personalize`, plots and table: {layout.search}\nreport:  {layout.report}")
    return 1 if failed or broken else 0
