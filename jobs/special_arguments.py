"""Arguments that one job alone has."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

from jobs.batch_arguments import BATCH_ARGUMENTS
from jobs.submit_arguments import add_jobs_arguments


def _inspect(job: ArgumentParser) -> None:
    job.add_argument("folder", type=Path, metavar="DIR", help="run folder, its shards/ or one shard")
    job.add_argument("--out", type=Path, metavar="DIR", help="folder for the contact sheets; none: beside each shard")


def _ingest(job: ArgumentParser) -> None:
    what = "folder of videos, TikTok dataset, folders of daily videos, or a table of clips"
    job.add_argument("folder", type=Path, metavar="DIR|TABLE", help=what)
    job.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="folder for clips.parquet; none: this one")
    job.add_argument("--kind", default="auto", choices=("auto", "manifest", "tiktok", "daily", "clips"), help="the layout; auto: recognised")


def _plan(job: ArgumentParser) -> None:
    job.add_argument("--gpu-gib", action="append", type=float, metavar="GIB", help="memory of a GPU, repeatable; none: 24, 40 and 80")
    job.add_argument("--json", type=Path, metavar="FILE", help="the figures in bytes")


def _export(job: ArgumentParser) -> None:
    job.add_argument("--performer", dest="exported", required=True, metavar="NAME", help="whose finetuned model")
    job.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder for the model: a new or an empty one")


WITHOUT_CONFIG: dict[str, Callable[[ArgumentParser], None]] = {
    **BATCH_ARGUMENTS,
    "inspect": _inspect,
    "ingest": _ingest,
    "jobs": add_jobs_arguments,
}
BESIDE_CONFIG: dict[str, Callable[[ArgumentParser], None]] = {"plan": _plan, "export": _export}
