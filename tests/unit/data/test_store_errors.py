"""Errors of a store: what is tried again, and what the user is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dpscale.data.store_errors import StoreError, explained, patiently

URL = "s3://bucket/shards"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpscale.data.store_errors._WAITS_S", (0.0, 0.0))


def _failing(errors: list[OSError]) -> Callable[[], str]:
    """Raises the errors one by one, then answers."""

    def action() -> str:
        if errors:
            raise errors.pop(0)
        return "answer"

    return action


@pytest.mark.parametrize(
    "message",
    [
        "When listing objects: AWS Error NETWORK_CONNECTION during ListObjectsV2 operation: curlCode: 7, Could not connect to server",
        "When reading: AWS Error SLOW_DOWN during GetObject operation: Please reduce your request rate",
        "When reading: AWS Error UNKNOWN (HTTP status 503) during GetObject operation",
        "AWS Error INTERNAL_FAILURE during PutObject operation: We encountered an internal error",
        "[Errno 110] Connection timed out",
    ],
)
def test_what_passes_by_is_tried_again(message: str):
    assert patiently(_failing([OSError(message)] * 2), URL) == "answer"
    with pytest.raises(StoreError, match=f"^the store {URL}: it "):
        patiently(_failing([OSError(message)] * 3), URL)


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("AWS Error ACCESS_DENIED during HeadObject operation: No response body.", "AWS_SECRET_ACCESS_KEY"),
        ("AWS Error INVALID_ACCESS_KEY_ID during CreateMultipartUpload operation: does not exist", "AWS_SECRET_ACCESS_KEY"),
        ("AWS Error SIGNATURE_DOES_NOT_MATCH during PutObject operation", "AWS_SECRET_ACCESS_KEY"),
        ("[Errno 13] Permission denied", "its owner and mode"),
        ("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation: The specified bucket does not exist", "create it"),
        ("Bucket 'timed out' not found", "create it"),
        ("[Errno 28] No space left on device", "make room: .Errno 28. No space left"),
    ],
)
def test_what_stays_wrong_is_told_at_once(message: str, remedy: str):
    errors = [OSError(message)] * 2
    with pytest.raises(StoreError, match=remedy):
        patiently(_failing(errors), URL)
    assert len(errors) == 1


def test_names_do_not_count_as_causes():
    error = OSError("When getting information for key 'access denied' in bucket 'no-such-bucket': AWS Error NETWORK_CONNECTION")
    assert "does not answer" in explained(error, URL)


def test_an_absent_file_is_an_answer():
    with pytest.raises(FileNotFoundError):
        patiently(_failing([FileNotFoundError(2, "no such file")]), URL)
