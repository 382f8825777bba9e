"""Some or all stages of a run, in order, in one run folder."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dpscale.config.schema import Config
from dpscale.data.checkpoint import write_json
from dpscale.data.layout import RunLayout
from jobs.batch import Batch
from jobs.cluster_session import ray_session
from jobs.progress import Progress
from jobs.run_folder import claimed
from jobs.shared_folder import check_shared
from jobs.stage_times import add_seconds, measured
from jobs.stages import ON_RAY
from jobs.summary import earlier_failures, summary
from jobs.tracking import replay, tracked


def run_stages(config: Config, stages: Sequence[str]) -> int:
    """Runs `stages` and then the report. 1 if the summary names failures, else 0."""
    layout = RunLayout.of(config)
    progress = Progress(config, layout)
    progress.say(f"{len(config.performers)} performers, {len(config.planned_videos())} videos -> {layout.root}")
    with claimed(config, layout):
        failed = earlier_failures(layout, stages)
        if stages:
            _on_ray(config, layout, stages, progress, failed)
        else:
            replay(config, layout)
        with measured(layout, "report"):
            from dpscale.report.page import write_report

            write_report(config, layout, summary(config, layout, failed))
        write_json(layout.summary, summary(config, layout, failed))
    progress.say(f"report:  {layout.report}\nsummary: {layout.summary}")
    return 1 if failed else 0


def _on_ray(config: Config, layout: RunLayout, stages: Sequence[str], progress: Progress, failed: dict[str, str]) -> None:
    start = time.monotonic()
    with ray_session(config.ray):
        check_shared(layout.root, progress.say)
        with tracked(config, layout, failed) as tracker:
            add_seconds(layout, "start", time.monotonic() - start)
            batch = Batch(config, layout, tracker, failed)
            for stage in stages:
                _one_stage(stage, batch, progress)


def _one_stage(stage: str, batch: Batch, progress: Progress) -> None:
    start = time.monotonic()
    with progress.stage(stage):
        outcomes = ON_RAY[stage](batch)
    batch.record(outcomes)
    if not all(outcome.skipped for outcome in outcomes):
        add_seconds(batch.layout, stage, time.monotonic() - start)
    progress.ended(stage, outcomes, time.monotonic() - start)
