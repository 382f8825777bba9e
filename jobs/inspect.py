"""`dpscale inspect DIR`: what the shards below a folder hold, whether every row of them is sound, and a contact sheet of each."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dpscale.data.checkpoint import write_atomically
from dpscale.data.shard_checks import ShardReport, check_shard, find_shards
from dpscale.data.types import InputError
from dpscale.evaluate.video_files import write_png
from dpscale.report.shard_sheet import shard_sheet

SHEET = "_contact_sheet.png"
"""Readers of Parquet datasets skip names that begin with '_'."""


def run(folder: Path, sheets: Path | None) -> int:
    """Prints a line a shard; writes contact sheets to `sheets` (none: beside each shard). 1 if a shard is damaged or unfinished."""
    shards = find_shards(folder)
    if not shards:
        raise InputError(f"{folder}: holds no shards: give a run folder, its shards/ or one performer=*/clip=* folder")
    table = Table("performer", "clip", "frames", "train", "size", "fps", "MiB", "pose by", "sound", caption=str(folder))
    bad: list[ShardReport] = []
    for shard in shards:
        report = check_shard(shard)
        table.add_row(*_cells(report))
        if report.problems:
            bad.append(report)
        if report.clip is not None:
            write_atomically(_sheet_path(report, sheets), lambda path, clip=report.clip: write_png(path, shard_sheet(clip)))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    for report in bad:
        print(*(f"{report.folder}: {problem}" for problem in report.problems), sep="\n")
    print(f"{len(shards) - len(bad)} of {len(shards)} shards are sound; contact sheets: {sheets or SHEET + ' in each'}")
    return 1 if bad else 0


def _sheet_path(report: ShardReport, sheets: Path | None) -> Path:
    if sheets is None:
        return report.folder / SHEET
    return sheets / f"{report.folder.parent.name.removeprefix('performer=')}--{report.folder.name.removeprefix('clip=')}.png"


def _cells(report: ShardReport) -> list[str]:
    names = [report.folder.parent.name.removeprefix("performer="), report.folder.name.removeprefix("clip=")]
    verdict = "yes" if not report.problems else "[red]no[/red]"
    mib = f"{report.num_bytes / 2**20:.1f}"
    if report.clip is None:
        return [*names, "-", "-", "-", "-", mib, "-", verdict]
    clip = report.clip
    height, width = clip.pose.iuv.shape[1:3]
    by = clip.provenance.get("pose", "unknown")
    return [*names, str(len(clip)), str(clip.num_train), f"{width}x{height}", f"{clip.fps:g}", mib, by, verdict]
