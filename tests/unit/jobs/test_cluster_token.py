"""Where a token comes from, and when it is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpscale.data.types import InputError
from jobs.cluster_token import choose_token


def test_without_a_token_nothing_is_sent_and_nothing_is_switched_on(tmp_path: Path):
    environment: dict[str, str] = {}
    assert not choose_token(environment, tmp_path)
    assert environment == {}


@pytest.mark.parametrize("source", ["value", "file", "home"])
def test_a_configured_token_switches_authentication_on(source: str, tmp_path: Path):
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("t0ken\n")
    environment = {"value": {"RAY_AUTH_TOKEN": "t0ken"}, "file": {"RAY_AUTH_TOKEN_PATH": str(token)}, "home": {}}[source]
    assert choose_token(environment, tmp_path if source == "home" else tmp_path / "nobody")
    assert environment["RAY_AUTH_MODE"] == "token"


def test_who_disabled_it_is_obeyed(tmp_path: Path):
    environment = {"RAY_AUTH_TOKEN": "t0ken", "RAY_AUTH_MODE": "disabled"}
    assert not choose_token(environment, tmp_path)
    assert environment["RAY_AUTH_MODE"] == "disabled"


@pytest.mark.parametrize("content", [None, " \n"])
def test_a_file_without_a_token_is_named(content: str | None, tmp_path: Path):
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=f"RAY_AUTH_TOKEN_PATH: {path}"):
        choose_token({"RAY_AUTH_TOKEN_PATH": str(path)}, tmp_path)
