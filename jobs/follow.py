"""A submitted job's log on this terminal, until the job ends."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

from dpscale.data.types import InputError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

DETACHED, STOPPED = 130, 143
_ASK_EVERY_S, _MOST_SILENCES = 1.0, 120


def follow(client: JobSubmissionClient, submission_id: str) -> int:
    """Prints the log as it grows; returns the job's exit status, 143 if it was stopped. Ctrl-C ends the printing, not the job (130).

    Raises InputError if the cluster does not answer 120 times in a row."""
    try:
        job = _Log(client, submission_id).print_until_end()
    except KeyboardInterrupt:
        print(f"\nthe job goes on. Follow it with: dpscale jobs logs {submission_id}; end it with: dpscale jobs stop {submission_id}")
        return DETACHED
    return {"SUCCEEDED": 0, "STOPPED": STOPPED}.get(job.status.value, job.driver_exit_code or 1)


class _Log:
    """Remembers how much is printed: a new connection sends the log from its start."""

    def __init__(self, client: JobSubmissionClient, submission_id: str) -> None:
        self._client, self._id, self._printed = client, submission_id, 0

    def print_until_end(self) -> JobDetails:
        import aiohttp  # Ray's own client uses it

        job, silences = None, 0
        while job is None or not job.status.is_terminal():
            try:
                job = self._client.get_job_info(self._id)  # asked before: if it has ended, what follows is the whole log
                silences = 0
                asyncio.run(self._print_rest())
            except (OSError, RuntimeError, aiohttp.ClientError) as error:  # the connection broke, or the log is gone with its node
                silences += 1
                if silences > _MOST_SILENCES:
                    raise InputError(f"lost the cluster ({error}); the job may go on: dpscale jobs logs {self._id}") from error
            time.sleep(_ASK_EVERY_S)
        return job

    async def _print_rest(self) -> None:
        seen = 0
        async for text in self._client.tail_job_logs(self._id):
            sys.stdout.write(text[max(0, self._printed - seen) :])
            sys.stdout.flush()
            seen, self._printed = seen + len(text), max(self._printed, seen + len(text))
