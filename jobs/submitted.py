"""`python -m jobs.submitted ID JOB`: a submitted job, on the cluster, in the folder that came with it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

CONFIG_FILE, SENDER_FILE = "submitted_config.json", "submitted_by.json"
_SET_IT = "set it on every node of the cluster (named by ray.submit.secrets or tracking.uri, or one of MLflow's that is set where the job was sent)"


def main(argv: Sequence[str], folder: Path) -> int:
    """Exit status as of the job itself; 2 if this image is another one than the sender expects."""
    submission_id, job, *flags = argv
    wrong = problems(json.loads((folder / SENDER_FILE).read_text()))
    if wrong:
        print("error: this cluster cannot run the job:\n" + "\n".join(f"  {line}" for line in wrong), file=sys.stderr)
        return 2
    from jobs.cli import main as run_job

    return run_job([job, str(folder / CONFIG_FILE), *flags], resume=f"dpscale jobs retry {submission_id}")


def problems(sender: dict) -> list[str]:
    """What stands in the way, one line each, with the remedy."""
    try:
        from jobs.versions import Versions, disagreements, own_versions

        wrong = disagreements(Versions.of(sender["versions"]), own_versions(), "the job's image")
    except ModuleNotFoundError as error:
        wrong = [f"{sys.executable} has no package {error.name}: use an image with dpscale's packages, or --set ray.submit.install=true"]
    return wrong + [f"${name} is not set here: {_SET_IT}" for name in missing(sender["secrets"])]


def missing(names: Sequence[str]) -> list[str]:
    return [name for name in names if not os.environ.get(name)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path.cwd()))
