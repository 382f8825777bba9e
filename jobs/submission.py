"""A job of dpscale with its settings: all that is needed to send it to a cluster, and to send it again."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from dpscale.config.load import check, resolved
from dpscale.config.schema import Config
from dpscale.data.types import InputError
from jobs.submit_arguments import SUBMITTABLE

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")


@dataclass(frozen=True)
class Submission:
    job: str
    config: Config
    flags: tuple[str, ...] = ()

    def metadata(self) -> dict[str, str]:
        """What the cluster keeps with the job, for everybody there to read. Of the settings the sections that are not all default."""
        defaults = resolved(Config())
        settings = {name: section for name, section in resolved(self.config).items() if section != defaults[name]}
        return {
            "dpscale_job": self.job,
            "dpscale_flags": " ".join(self.flags),
            "dpscale_config": json.dumps(settings),
            "dpscale_run_folder": str(self.config.run.root / self.config.run.name),
        }

    @classmethod
    def of(cls, submission_id: str, metadata: Mapping[str, str]) -> Submission:
        """The inverse of `metadata`. Raises InputError, ConfigError."""
        job = metadata.get("dpscale_job")
        if job not in SUBMITTABLE:
            raise InputError(f"{submission_id}: was not sent by `dpscale JOB --submit`, so its settings are not known; submit it again yourself")
        try:
            settings = json.loads(metadata["dpscale_config"])
        except (KeyError, json.JSONDecodeError) as error:
            raise InputError(f"{submission_id}: its settings cannot be read ({error}); submit it again yourself") from error
        flags = ("--retry-quarantined",) if "--retry-quarantined" in metadata.get("dpscale_flags", "") else ()
        return cls(job, check(settings), flags)


def new_id(config: Config) -> str:
    return f"dpscale-{config.run.name}-{secrets.token_hex(3)}"


def checked_id(submission_id: str) -> str:
    """It becomes part of a URL: nothing in it may lead elsewhere. Raises InputError."""
    if not _ID.fullmatch(submission_id) or ".." in submission_id:
        raise InputError("a job's id holds letters, digits, '-', '_' and '.' only; `dpscale jobs list` shows them")
    return submission_id
