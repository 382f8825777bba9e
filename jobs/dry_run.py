"""`--dry-run`: the resolved settings and what is left to do."""

from __future__ import annotations

import json

from dpscale.config.load import resolved
from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from jobs.pieces import STAGES, pieces
from jobs.run_folder import check_unchanged


def run(config: Config) -> int:
    layout = RunLayout.of(config)
    check_unchanged(config, layout)
    print(json.dumps(resolved(config), indent=2))
    print(f"\nrun folder: {layout.root}")
    print(f"performers: {', '.join(f'{p.name} ({p.kind})' for p in config.performers) or 'none'}")
    print(f"videos:     {', '.join(map(layout.video_name, config.planned_videos())) or 'none'}")
    plan, notes = pieces(config, layout), _intervals(config, layout)
    for stage in STAGES:
        for piece in (p for p in plan if p.stage == stage):
            print(f"  {stage:<10}  {piece.name:<40}  {'finished' if piece.finished else 'to do':<8}  {notes.get((stage, piece.name), '')}".rstrip())
    return 0


def _intervals(config: Config, layout: RunLayout) -> dict[tuple[str, str], str]:
    """Stage and video -> its refresh interval, where it is predicted."""
    if config.joint.refresh_interval != "auto":
        return {}
    from dpscale.search.prediction import check_rule, foreseen  # brings torch along

    check_rule(config, layout)
    found = {layout.video_name(video): foreseen(config, layout, video) for video in config.planned_videos()}
    told = {name: "its refresh interval follows from its pose" if found[name] is None else f"a refresh every {found[name]} steps" for name in found}
    return {("optimize", name): text for name, text in told.items()}
