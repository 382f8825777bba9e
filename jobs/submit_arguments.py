"""Arguments of jobs that go to a Ray cluster, and of `dpscale jobs`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from dpscale.config.load import ConfigError

SUBMITTABLE = ("personalize", "demo", "preprocess", "finetune", "optimize", "evaluate", "report", "synth", "pretrain")
"""The others are quick, and their results belong where they are asked for."""

_ACTIONS = {
    "list": "every job that the cluster remembers",
    "logs": "the log of a job, followed until the job ends",
    "stop": "end a job; what it finished is kept",
    "retry": "the same job again, in the same run folder: it resumes",
}


def add_submit_arguments(job: ArgumentParser) -> None:
    job.add_argument("--submit", metavar="ADDRESS", help="run on the Ray cluster whose dashboard listens there (http://HEAD:8265)")
    job.add_argument("--no-wait", action="store_true", help="with --submit: print the job's id and return")
    _add_unauthenticated(job)


def check_submit_arguments(arguments: Namespace) -> None:
    """Raises ConfigError for flags that mean nothing without --submit: a job that was to go to a cluster would run here."""
    given = [flag for flag in ("no_wait", "allow_unauthenticated") if getattr(arguments, flag, False)]
    if given and not arguments.submit:
        flag = f"--{given[0].replace('_', '-')}"
        raise ConfigError(f"{flag} goes with --submit: name the cluster (--submit http://HEAD:8265), or leave {flag} out to run the job here")


def submit_arguments(arguments: Namespace) -> dict[str, Any]:
    """Keyword arguments of jobs.submit.run."""
    flags = ("--retry-quarantined",) if getattr(arguments, "retry_quarantined", False) else ()
    return dict(address=arguments.submit, flags=flags, wait=not arguments.no_wait, allow_unauthenticated=arguments.allow_unauthenticated)


def add_jobs_arguments(jobs: ArgumentParser) -> None:
    actions = jobs.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in _ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text)
        if name != "list":
            action.add_argument("id", metavar="ID", help="as `dpscale jobs list` and --submit print it")
        action.add_argument("--address", metavar="ADDRESS", help="of the dashboard; none: RAY_API_SERVER_ADDRESS, or http://127.0.0.1:8265")
        _add_unauthenticated(action)
        if name == "retry":
            action.add_argument("--no-wait", action="store_true", help="print the new job's id and return")


def _add_unauthenticated(parser: ArgumentParser) -> None:
    parser.add_argument("--allow-unauthenticated", action="store_true", help="talk to a cluster beyond this machine without a token")
