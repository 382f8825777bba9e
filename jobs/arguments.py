"""The command line: jobs and their arguments."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.batch_arguments import BATCH_JOBS
from jobs.settings import TAKES_PERFORMERS
from jobs.special_arguments import BESIDE_CONFIG, WITHOUT_CONFIG
from jobs.submit_arguments import SUBMITTABLE, add_submit_arguments

JOBS = {
    "personalize": "the whole pipeline: preprocess, finetune, optimize, evaluate, report",
    "demo": "personalize a real man and a rendered performer with the packaged weights",
    "preprocess": "decode, crop, keypoints, body fit, flow, latents -> Parquet shards",
    "finetune": "adapt the diffusion model and the decoder to each performer",
    "optimize": "joint optimisation of the videos (Algorithm 1)",
    "evaluate": "metrics, mp4s and contact sheets of the finished videos",
    "search": "try settings, the refresh interval first, on every video that has a truth",
    "report": "one HTML page and summary.json from what is there",
    **BATCH_JOBS,
    "ingest": "list the clips of a data set -> clips.parquet",
    "inspect": "list preprocessed clips, check every row, draw contact sheets",
    "export": "write one finetuned performer as a model folder in diffusers' format",
    "synth": "write rendered performers: mp4 and exact truth",
    "plan": "memory that finetuning needs, and which level of offload fits a GPU",
    "pretrain": "train the packaged base model on rendered performers",
    "jobs": "list, follow, stop and retry what was submitted to a Ray cluster",
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="dpscale", description="DiffPerformer for many performers at once, on Ray. The same command again resumes.")
    jobs = top.add_subparsers(dest="job", required=True, metavar="JOB")
    for name, text in JOBS.items():
        job = jobs.add_parser(name, help=text, description=text)
        if name in WITHOUT_CONFIG:
            WITHOUT_CONFIG[name](job)
            continue
        job.add_argument(
            "config", nargs="?", type=Path, metavar="CONFIG.toml", help="settings, or config.json of a run; none: a preset of jobs/configs"
        )
        job.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, for example finetune.lr=1e-5; repeatable")
        job.add_argument("--out", type=Path, metavar="DIR", help="run folder, instead of <run.root>/<run.name>")
        job.add_argument("--dry-run", action="store_true", help="print the resolved settings and what is left to do, then stop")
        if name in SUBMITTABLE:
            add_submit_arguments(job)
        if name in BESIDE_CONFIG:
            BESIDE_CONFIG[name](job)
        if name in ("personalize", "demo", "preprocess"):
            job.add_argument("--retry-quarantined", action="store_true", help="try clips again that an earlier run found unusable")
        if name in TAKES_PERFORMERS:
            job.add_argument("--performer", action="append", default=[], metavar="NAME=CLIP.mp4", help="one more performer; repeatable")
            job.add_argument(
                "--clips", type=Path, metavar="TABLE", help="performers from a table of clips (.csv or .parquet, as `dpscale ingest` writes)"
            )
            job.add_argument("--person", type=int, metavar="N", help="of the videos of --performer: which of several people, by prominence")
            job.add_argument("--drive", action="append", default=[], metavar="FILE.mp4", help="one more driving video (or NAME=FILE.mp4); repeatable")
    return top
