"""The Jobs API of a Ray cluster, with the token that it asks for."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from dpscale.data.types import InputError
from jobs.cluster_access import api_url, check_protected
from jobs.cluster_token import HOW_TO_SET_A_TOKEN, choose_token
from jobs.versions import Versions, disagreements, own_versions

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient


def connect(address: str, allow_unauthenticated: bool = False) -> JobSubmissionClient:
    """A client of the cluster whose dashboard listens at `address`. Raises InputError: not reachable, not protected, token missing or wrong."""
    url = api_url(address)
    has_token = choose_token(os.environ)
    if not allow_unauthenticated:
        check_protected(url, has_token)
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):  # Ray prefers them to the address that it is given
        os.environ.pop(name, None)
    from ray.exceptions import AuthenticationError  # after the token is chosen: Ray reads the variables once
    from ray.job_submission import JobSubmissionClient

    for name in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
    try:
        return JobSubmissionClient(url)
    except ConnectionError as error:
        raise InputError(f"{url}: no Ray cluster answers there; give its dashboard's address (http://HEAD:8265), or open a tunnel to it") from error
    except (AuthenticationError, RuntimeError) as error:
        raise InputError(_explained(url, str(error))) from error


def check_versions(client: JobSubmissionClient) -> None:
    """Raises InputError if the cluster's Ray or Python is another one than here."""
    wrong = disagreements(own_versions(), cluster_versions(client), "the cluster")
    if wrong:
        raise InputError(f"{client.get_address()} does not fit this machine:\n" + "\n".join(f"  {line}" for line in wrong))


def cluster_versions(client: JobSubmissionClient) -> Versions:
    answer = client._do_request("GET", "/api/v0/cluster_metadata")  # pyright: ignore[reportPrivateUsage] (the public client has no call for it)
    data: dict[str, Any] = answer.json().get("data", {}) if answer.status_code == 200 else {}
    return Versions(None, data.get("rayVersion"), data.get("pythonVersion"))


def _explained(url: str, text: str) -> str:
    if text.startswith("Authentication required"):
        return f"{url}: the cluster asks for a token and none was sent: {HOW_TO_SET_A_TOKEN}"
    if text.startswith("Authentication failed"):
        return f"{url}: the cluster does not know the token that was sent: {HOW_TO_SET_A_TOKEN}"
    return f"{url}: does not answer like a Ray cluster ({text.splitlines()[0] if text else 'no reason given'})"
