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
_ASK_EVERY_S, _PATIENCE_S = 1.0, 120.0


def follow(client: JobSubmissionClient, submission_id: str) -> int:
    """Prints the log as it grows; returns the job's exit status, 143 if it was stopped. Ctrl-C ends the printing, not the job (130).

    Raises InputError if the cluster does not answer for two minutes."""
    import aiohttp  # Ray's own client uses it

    log, answered = _Log(client, submission_id), time.monotonic()
    while True:
        try:
            ended = client.get_job_info(submission_id).status.is_terminal()  # asked before: then what follows is the whole log
            asyncio.run(log.print_rest())
            answered = time.monotonic()
            if ended:
                return exit_status(client.get_job_info(submission_id))
        except (OSError, RuntimeError, aiohttp.ClientError) as error:  # the connection broke, not the job
            if time.monotonic() - answered > _PATIENCE_S:
                raise InputError(f"lost the cluster ({error}); the job may go on: dpscale jobs logs {submission_id}") from error
        except KeyboardInterrupt:
            print(f"\nthe job goes on. Follow it with: dpscale jobs logs {submission_id}; end it with: dpscale jobs stop {submission_id}")
            return DETACHED
        time.sleep(_ASK_EVERY_S)


def exit_status(job: JobDetails) -> int:
    if job.status == "STOPPED":
        return STOPPED
    return 0 if job.status == "SUCCEEDED" else job.driver_exit_code or 1


class _Log:
    """Remembers how much is printed: a new connection sends the log from its start."""

    def __init__(self, client: JobSubmissionClient, submission_id: str) -> None:
        self._client, self._id, self._printed = client, submission_id, 0

    async def print_rest(self) -> None:
        """Returns when the job ends or the connection does."""
        seen = 0
        async for text in self._client.tail_job_logs(self._id):
            sys.stdout.write(text[max(0, self._printed - seen) :])
            sys.stdout.flush()
            seen += len(text)
            self._printed = max(self._printed, seen)
