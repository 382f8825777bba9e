"""summary.json: what a run achieved, how long it took, and what failed."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dpscale
from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from jobs.stage_times import stage_seconds


def summary(config: Config, layout: RunLayout, failed: Mapping[str, str]) -> dict[str, Any]:
    """From the metrics files of the videos, the recorded times and `failed` (name -> "stage: error")."""
    seconds = stage_seconds(layout)
    return {
        "performers": performers(config, layout),
        "stages_s": seconds,
        "total_s": round(sum(seconds.values()), 2),
        "commit": commit(),
        "failed": dict(failed),
    }


def earlier_failures(layout: RunLayout, stages: Sequence[str]) -> dict[str, str]:
    """What the last summary says failed in other stages than those that run again now."""
    failed = json.loads(layout.summary.read_text())["failed"] if layout.summary.exists() else {}
    return {name: text for name, text in failed.items() if text.partition(":")[0] not in stages}


def performers(config: Config, layout: RunLayout) -> dict[str, Any]:
    """{NAME: {"methods": {METHOD: {METRIC: value}}, "drives": {DRIVE: methods}}}: `methods` of the held-out part of the own video."""
    own = {drive.name for drive in config.drives if drive.kind == "self"}
    result: dict[str, Any] = {}
    for video in config.planned_videos():
        if layout.metrics(video).exists():
            methods = json.loads(layout.metrics(video).read_text())["methods"]
            entry = result.setdefault(video.performer, {"methods": {}, "drives": {}})
            if video.drive in own:
                entry["methods"] = methods
            else:
                entry["drives"][video.drive] = methods
    return result


def commit() -> str:
    """The commit of the checkout that runs, or the package's version where there is none."""
    package = Path(dpscale.__file__).resolve().parent
    if shutil.which("git") is None:
        return dpscale.__version__
    found = subprocess.run(["git", "-C", str(package), "rev-parse", "--show-toplevel", "HEAD"], capture_output=True, text=True, check=False)
    top, _, head = found.stdout.strip().partition("\n")
    return head if found.returncode == 0 and Path(top) == package.parent else dpscale.__version__
