"""URLs that are no place for shards: the message says what to do, and repeats no secret."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from dpscale.data.places import place_at
from dpscale.data.types import InputError

SECRET = "an/example+of/a/secret"


@pytest.mark.parametrize(
    "url",
    [
        f"s3://AKIAEXAMPLE:{SECRET}@bucket/x",
        "s3://AKIAEXAMPLE@bucket/x",
        f"abfs://:{SECRET}@account.dfs.core.windows.net/x",
        f"s3://AKIAEXAMPLE:{SECRET}",
        f"s3://bucket/x?scheme=http&secret_key={SECRET}",
        f"s3://bucket/x?endpoint_override=AKIAEXAMPLE:{SECRET}@host",
    ],
)
def test_a_url_with_a_secret_is_refused_and_not_repeated(url: str):
    with pytest.raises(InputError, match="in the environment") as refused:
        place_at(url)
    assert not any(part in "".join(traceback.format_exception_only(refused.value)) for part in ("AKIA", SECRET))


@pytest.mark.parametrize("url", ["ftp://host/x", "s3://", "s3://bucket/x?speed=high", "file://host/x", "/"])
def test_a_url_that_is_no_store_is_named(url: str):
    with pytest.raises(InputError, match=f"the store {url.replace('?', '.')}: "):
        place_at(url)


@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}"])
def test_a_folder_has_several_forms(tmp_path: Path, form: str):
    assert place_at(form.format(tmp_path)).path == str(tmp_path)


def test_a_relative_path_is_below_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    place_at("a/store").below("b/c.txt").write(b"content")
    assert (tmp_path / "a" / "store" / "b" / "c.txt").read_bytes() == b"content"


@pytest.mark.parametrize("url", ["gs://anonymous@bucket/x", "abfs://container@account.dfs.core.windows.net/x"])
def test_other_clouds_are_understood(url: str):
    assert place_at(url).path.endswith("/x")
