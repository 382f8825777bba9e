"""Names and texts from users, made such that MLflow and the databases behind it take them."""

from __future__ import annotations

import hashlib
import posixpath
import re

MAX_NAME = 250
"""Characters of a metric's, param's or tag's name (MLflow)."""

VARIABLE = re.compile(r"\$\{(\w+)\}")
"""Of the environment, in a tracking URI: its value is put in where the record is written (tracking/uri.py)."""

_NOT_IN_NAMES = re.compile(r"^\.|[^\w\-. /]")
_NOT_IN_MODELS = re.compile(r"^\.|[^\w\-.]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]|[\ud800-\udfff]")


def safe_key(name: str) -> str:
    """`name` as the name of a metric, param or tag: letters, digits, ``_ - . /`` and spaces, a normal relative path, at most 250 characters.

    Two different names stay different: where something had to be replaced, a hash of the original follows."""
    parts = [part for part in _NOT_IN_NAMES.sub("_", name).split("/") if part not in ("", ".", "..")]
    return _told_apart(posixpath.join(*parts) if parts else "_", name)


def model_name(experiment: str, performer: str) -> str:
    """Name of a performer's registered model. The registry is one for all experiments of a server, hence the experiment's name in it."""
    name = f"{experiment}-{performer}"
    return _told_apart(_NOT_IN_MODELS.sub("_", name), name)


def safe_text(value: object, limit: int) -> str:
    """`value` as text without control characters, which databases refuse, of at most `limit` characters."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(value))[:limit]


def shown(uri: str) -> str:
    """A tracking URI without user, password and options: for messages and files."""
    head, separator, rest = uri.partition("://")
    server, slash, path = rest.partition("/")
    return f"{head}{separator}{server.rpartition('@')[2]}{slash}{path}".partition("?")[0]


def _told_apart(safe: str, name: str) -> str:
    if safe == name and len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{safe[: MAX_NAME - len(digest) - 1]}-{digest}"
