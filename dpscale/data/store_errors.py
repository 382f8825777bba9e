"""What a remote file system's error means: whether to wait and try again, and what the user can do about it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")

_WAITS_S = (0.5, 2.0, 8.0)
"""Before each further try. pyarrow's S3 client also tries on its own, for 6 s, where nothing answers."""


class StoreError(RuntimeError):
    """The store failed in the middle of a run; the message names its URL and the remedy."""


@dataclass(frozen=True)
class _Fault:
    pattern: str
    transient: bool
    remedy: str


_FAULTS = (
    _Fault(
        r"no.?such.?bucket|bucket +not found|bucket does not exist|container.?not.?found", False,
        "there is no such bucket: create it, or correct the bucket's name in the URL",
    ),
    _Fault(
        r"access.?denied|invalid.?access.?key|signature.?does.?not.?match|(expired|invalid).?(client.?)?token|permission.?denied|read-only"
        r"|unauthenticated|unauthorized|authentication.?failed|forbidden|http status 40[13]|credentials", False,
        "access is refused: set credentials that may list, read, write and delete there in the environment "
        "(s3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; gs: GOOGLE_APPLICATION_CREDENTIALS; a folder: its owner and mode)",
    ),
    _Fault(
        r"network.?connection|could.?not.?connect|could.?not.?resolve|connection (reset|refused)|timed?.?out|curlcode", True,
        "it does not answer: correct endpoint_override and scheme in the URL, or see whether the server and the network are up",
    ),
    _Fault(
        r"unavailable|slow.?down|throttl|too many requests|internal.?(failure|error)|http status (429|50\d)", True,
        "it is overloaded: try again later",
    ),
)  # fmt: skip


def patiently(action: Callable[[], Result], url: str) -> Result:
    """The result of `action`, tried again after errors that pass by. FileNotFoundError is an answer; other errors become StoreError."""
    for wait_s in (*_WAITS_S, None):
        try:
            return action()
        except FileNotFoundError:
            raise
        except OSError as error:
            if wait_s is None or not _is_transient(error):
                raise StoreError(explained(error, url)) from error
            time.sleep(wait_s)
    raise AssertionError("the last try returns or raises")


def explained(error: OSError, url: str) -> str:
    """One line that names the store, what is wrong with it, and the remedy."""
    fault = _fault(error)
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"the store {url}: {fault.remedy if fault else f'correct its URL, or make room: {first}'}"


def _is_transient(error: OSError) -> bool:
    fault = _fault(error)
    return fault is not None and fault.transient


def _fault(error: OSError) -> _Fault | None:
    said = re.sub(r"'[^']*'", "", str(error))  # a bucket may be called anything
    return next((fault for fault in _FAULTS if re.search(fault.pattern, said, re.IGNORECASE)), None)
