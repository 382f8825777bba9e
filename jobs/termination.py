"""SIGTERM ends a job like Ctrl-C, whatever it meets the job at."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_AGAIN_S = 0.1


class Terminated(KeyboardInterrupt):
    """SIGTERM, taken like Ctrl-C."""

    status = 143


@contextmanager
def terminable() -> Iterator[None]:
    """Inside, SIGTERM raises Terminated in the main thread; in another thread nothing changes.

    Python drops an exception that a weak reference's callback or a `__del__` raises, and Ray's libraries run many of them: a signal that
    arrives there would be forgotten, so it is sent once more."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler, hook = signal.signal(signal.SIGTERM, _terminated), sys.unraisablehook
    sys.unraisablehook = _sending_again(hook)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, handler)


def _terminated(signum: int, frame: object) -> None:
    raise Terminated


def _sending_again(hook: Callable[[sys.UnraisableHookArgs], object]) -> Callable[[sys.UnraisableHookArgs], None]:
    def dropped(unraisable: sys.UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            hook(unraisable)
            return
        number = signal.SIGTERM if issubclass(unraisable.exc_type, Terminated) else signal.SIGINT
        threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number)).start()

    return dropped
