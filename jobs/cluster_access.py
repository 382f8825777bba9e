"""Which clusters may be talked to: addresses, and who is let in there."""

from __future__ import annotations

import ipaddress
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from dpscale.data.types import InputError
from jobs.cluster_token import HOW_TO_SET_A_TOKEN


def api_url(address: str) -> str:
    """`head:8265` becomes `http://head:8265`. Raises InputError for anything but the address of a dashboard."""
    url = address if "://" in address else f"http://{address}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.path.strip("/") or parts.query:
        raise InputError("the cluster's address must be that of its dashboard, http://HOST:8265 or https://HOST, without a user, a path or a query")
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name: it may lead anywhere
        return False


def check_protected(url: str, has_token: bool) -> None:
    """Beyond loopback a cluster must ask for a token, and one must be there to be sent. Raises InputError."""
    if is_loopback(url):
        return
    if not has_token:
        raise InputError(
            f"{url} is not this machine, and no token is configured: {HOW_TO_SET_A_TOKEN}, "
            "or give --allow-unauthenticated if the network itself keeps everybody else out"
        )
    if _lets_anyone_in(url):
        raise InputError(
            f"{url} asks for no token: whoever reaches it can run code there. Start the cluster with RAY_AUTH_MODE=token, "
            "or give --allow-unauthenticated if the network itself keeps everybody else out"
        )


def _lets_anyone_in(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/api/jobs/", timeout=20) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):  # refused, or not there at all: the client says which
        return False
