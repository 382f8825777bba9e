"""`dpscale JOB [CONFIG.toml] [--set key=value]... [--dry-run] [--out DIR]`. Heavy imports wait until the job is known to run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from importlib import import_module

from dpscale.config.load import ConfigError
from jobs.arguments import parser
from jobs.batch_arguments import WISHES
from jobs.settings import config_of
from jobs.submit_arguments import check_submit_arguments, submit_arguments


def main(argv: Sequence[str] | None = None, resume: str | None = None) -> int:
    """Exit status: 0 done, 1 some piece failed, 2 wrong settings or input, 130 and 143 stopped by Ctrl-C and SIGTERM.

    `resume`: the command that goes on after a stop; none: this one again."""
    arguments = parser().parse_args(argv)
    again = "What was finished is kept. Resume with: " + (resume or "dpscale " + shlex.join(sys.argv[1:] if argv is None else argv))
    from dpscale.data.layout import RunLayout
    from dpscale.data.types import InputError

    try:
        if arguments.job == "inspect":
            return import_module("jobs.inspect").run(arguments.folder, arguments.out)
        if arguments.job == "ingest":
            return import_module("jobs.ingest").run(arguments.folder, arguments.out, arguments.kind)
        if arguments.job in ("jobs", "status", "timeline"):
            return import_module(f"jobs.{arguments.job}").run(arguments)
        if arguments.job in WISHES:
            return import_module("jobs.wish").run(arguments)
        check_submit_arguments(arguments)
        config = config_of(arguments)
        if arguments.dry_run:
            return import_module("jobs.dry_run").run(config)
        if arguments.job == "export":
            return import_module("jobs.export").run(config, arguments.exported, arguments.to)
        if arguments.job == "plan":
            return import_module("jobs.plan").run(config, arguments.gpu_gib, arguments.json)
        if getattr(arguments, "submit", None):
            return import_module("jobs.submit").run(arguments.job, config, **submit_arguments(arguments))
        if getattr(arguments, "retry_quarantined", False):
            RunLayout.of(config).quarantine.unlink(missing_ok=True)
        return import_module(f"jobs.{arguments.job}").run(config)
    except (ConfigError, InputError) as error:
        text, status = f"error: {error}", 2
    except OSError as error:
        text, status = f"error: {error}\n{again}", 1
    except KeyboardInterrupt as stop:
        text, status = f"stopped. {again}", getattr(stop, "status", 130)
    print(text, file=sys.stderr)
    return status
