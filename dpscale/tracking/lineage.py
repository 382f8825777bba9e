"""From what each result was made, as tags: data shards -> finetuned performer -> video -> scores. Read from the markers in the run folder.

The tag ``lineage.result`` names a result by its fingerprint; ``lineage.shards``, ``lineage.finetune`` and ``lineage.joint`` name the
results that it was made from. So "every video that this clip went into" is a search for tags.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpscale.config.schema import Config
from dpscale.data.checkpoint import marker_of, write_json
from dpscale.data.layout import RunLayout
from dpscale.tracking.names import shown
from dpscale.tracking.tracker import Tracker, run_key

log = logging.getLogger(__name__)

FILES = ("denoiser.safetensors", "decoder.safetensors", "card.json")
"""What a finetuned performer's folder holds beside its marker."""


def lineage(config: Config, layout: RunLayout) -> dict[str, dict[str, str]]:
    """Tags of every finished result's run, by the run's key."""
    return dict([*_performers(config, layout), *_videos(config, layout)])


def record_lineage(config: Config, layout: RunLayout, tracker: Tracker) -> None:
    """Tells the tracker what has changed since it was last told, and registers the performers that are new. A failure is a warning."""
    try:
        _record(config, layout, tracker)
    except (OSError, KeyError, ValueError) as error:  # a marker of another version, a disk that is full
        log.warning("tracking: lineage is not recorded (%s: %s); the run goes on", type(error).__name__, error)


def _record(config: Config, layout: RunLayout, tracker: Tracker) -> None:
    told_path, where = layout.root / "lineage.json", f"{shown(config.tracking.uri or '')} {config.tracking.experiment}"
    told = _read(told_path)
    known = told["runs"] if told.get("where") == where else {}
    now = lineage(config, layout)
    for key, tags in now.items():
        if known.get(key) != tags:
            tracker.tags(key, tags)
            _register(config, layout, tracker, key, tags)
    tracker.flush()
    write_json(told_path, {"where": where, "runs": now})


def _register(config: Config, layout: RunLayout, tracker: Tracker, key: str, tags: dict[str, str]) -> None:
    stage, _, performer = key.partition("/")
    if stage != "finetune" or not config.tracking.models:
        return
    files = [layout.finetune(performer) / name for name in FILES]
    about = {"settings": tags["lineage.result"], "shards": tags["lineage.shards"], "preset": config.diffusion.preset, "run": config.run.name}
    tracker.register(key, performer, [*files, layout.resolved_config], about)


def _performers(config: Config, layout: RunLayout) -> Iterator[tuple[str, dict[str, str]]]:
    for performer in config.performers:
        marker = marker_of(layout.finetune(performer.name))
        if marker is not None:
            tags = {"lineage.shards": _shards(layout, performer.name, "main"), "lineage.result": marker["settings"]}
            yield run_key("finetune", performer.name), tags


def _videos(config: Config, layout: RunLayout) -> Iterator[tuple[str, dict[str, str]]]:
    for video in config.planned_videos():
        made = marker_of(layout.joint(video) / "result")
        if made is None:
            continue
        name, made_from = layout.video_name(video), marker_of(layout.finetune(video.performer)) or {}
        tags = {"lineage.finetune": made_from.get("settings", ""), "lineage.shards": _shards(layout, video.performer, "main", video.drive)}
        yield run_key("optimize", name), tags | {"lineage.result": made["fingerprint"]}
        scored = _read(layout.metrics(video))
        if scored:
            yield run_key("evaluate", name), {"lineage.joint": made["fingerprint"], "lineage.result": scored["fingerprint"]}


def _shards(layout: RunLayout, performer: str, *clips: str) -> str:
    """Hashes of the shards' files; a clip without a shard of its own (a performer who drives himself) has none."""
    markers = [marker_of(layout.shard(performer, clip)) for clip in clips]
    return " ".join(marker["sha256"] for marker in markers if marker is not None)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}
