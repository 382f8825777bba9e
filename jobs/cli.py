"""`dpscale JOB [CONFIG.toml] [--set key=value]... [--dry-run] [--out DIR]`. Heavy imports wait until the job is known to run."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from dpscale.config.load import ConfigError
from jobs.settings import TAKES_PERFORMERS, config_of

JOBS = {
    "personalize": "the whole pipeline: preprocess, finetune, optimize, evaluate, report",
    "demo": "personalize a real man and a rendered performer with the packaged weights",
    "preprocess": "decode, crop, keypoints, body fit, flow, latents -> Parquet shards",
    "finetune": "adapt the diffusion model and the decoder to each performer",
    "optimize": "joint optimisation of the videos (Algorithm 1)",
    "evaluate": "metrics, mp4s and contact sheets of the finished videos",
    "report": "one HTML page and summary.json from what is there",
    "synth": "write rendered performers: mp4 and exact truth",
    "pretrain": "train the packaged base model on rendered performers",
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="dpscale", description="DiffPerformer for many performers at once, on Ray. The same command again resumes.")
    jobs = top.add_subparsers(dest="job", required=True, metavar="JOB")
    for name, text in JOBS.items():
        job = jobs.add_parser(name, help=text, description=text)
        job.add_argument("config", nargs="?", type=Path, metavar="CONFIG.toml", help="settings; none: a small preset from jobs/configs")
        job.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, for example finetune.lr=1e-5; repeatable")
        job.add_argument("--out", type=Path, metavar="DIR", help="run folder, instead of <run.root>/<run.name>")
        job.add_argument("--dry-run", action="store_true", help="print the resolved settings and what is left to do, then stop")
        if name in TAKES_PERFORMERS:
            job.add_argument("--performer", action="append", default=[], metavar="NAME=CLIP.mp4", help="one more performer; repeatable")
            job.add_argument("--drive", action="append", default=[], metavar="FILE.mp4", help="one more driving video (or NAME=FILE.mp4); repeatable")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 some piece failed, 2 wrong settings or input, 130 and 143 stopped by Ctrl-C and SIGTERM."""
    arguments = parser().parse_args(argv)
    again = "What was finished is kept. Resume with: dpscale " + shlex.join(sys.argv[1:] if argv is None else argv)
    from dpscale.data.types import InputError

    try:
        config = config_of(arguments)
        return import_module("jobs.dry_run" if arguments.dry_run else f"jobs.{arguments.job}").run(config)
    except (ConfigError, InputError) as error:
        text, status = f"error: {error}", 2
    except OSError as error:
        text, status = f"error: {error}\n{again}", 1
    except KeyboardInterrupt as stop:
        text, status = f"stopped. {again}", getattr(stop, "status", 130)
    print(text, file=sys.stderr)
    return status
