"""The token of a Ray cluster. Looks at the environment, and must do so before ray is imported."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

from dpscale.data.types import InputError

HOW_TO_SET_A_TOKEN = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE (or RAY_AUTH_TOKEN) to the token that the cluster was started with"


def choose_token(environment: MutableMapping[str, str], home: Path | None = None) -> bool:
    """Whether a token will be sent. Switches Ray's token authentication on where a token is configured and nothing says otherwise.

    Raises InputError if RAY_AUTH_TOKEN_PATH names no file with a token."""
    path = environment.get("RAY_AUTH_TOKEN_PATH")
    if path and not environment.get("RAY_AUTH_TOKEN") and not _holds_text(Path(path)):
        raise InputError(f"RAY_AUTH_TOKEN_PATH: {path} is no file with a token that can be read")
    found = bool(environment.get("RAY_AUTH_TOKEN") or path or _holds_text((home or Path.home()) / ".ray" / "auth_token"))
    if found:
        environment.setdefault("RAY_AUTH_MODE", "token")
    return found and environment["RAY_AUTH_MODE"].lower() == "token"


def _holds_text(path: Path) -> bool:
    try:
        return bool(path.read_text().strip())
    except (OSError, UnicodeDecodeError):
        return False
