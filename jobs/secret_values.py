"""Secrets travel by name only: the cluster's nodes have them in their environment, and nothing that is submitted holds their values."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dpscale.config.submit import SECRET_NAME
from dpscale.data.types import InputError
from dpscale.tracking.names import VARIABLE

_PASSWORD_IN_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#:@\"]*:[^\s?#@\"]+@", re.IGNORECASE)
_SECRET_IN_QUERY = re.compile(r"://[^\s\"]*[?&](sig|[^=&\s\"]*(key|secret|token|password)[^=&\s\"]*)=[^&\s\"]", re.IGNORECASE)
_SHORTEST = 8
"""Characters of a value that is looked for: a shorter one is found everywhere, and protects nothing."""


def secret_values(environment: Mapping[str, str]) -> dict[str, str]:
    """Values of the environment variables whose names speak of secrets. The name of a file with a secret is none."""
    found = {name: value.strip() for name, value in environment.items() if SECRET_NAME.search(name) and not name.endswith(("_PATH", "_FILE"))}
    return {name: value for name, value in found.items() if len(value) >= _SHORTEST and not value.startswith("/")}


def refuse_secret_values(place: str, content: bytes, secrets: Mapping[str, str]) -> None:
    """Raises InputError if `content` holds one of them. The message names the variable, never the value."""
    for name, value in secrets.items():
        if value.encode() in content:
            raise InputError(
                f"{place} holds the value of ${name}: take it out. Name the variable in ray.submit.secrets and set it on the cluster's nodes"
            )


def refuse_passwords(place: str, text: str) -> None:
    """Raises InputError if `text` holds a URL with a password, a key or a token; ${NAME} is none. The message does not repeat it."""
    text = VARIABLE.sub("", text)
    if _PASSWORD_IN_URL.search(text) or _SECRET_IN_QUERY.search(text):
        raise InputError(
            f"{place}: holds a URL with a password or a key, which everybody on the cluster could read. Leave it out, and set it on the cluster's "
            "nodes instead (MLflow server: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; Postgres: ${NAME} in tracking.uri, PGPASSWORD or "
            "PGPASSFILE; S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
        )
