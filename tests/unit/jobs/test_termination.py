"""How a job stops, also where Python drops exceptions."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from jobs.termination import Terminated, terminable

each_signal = pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])


@pytest.fixture(autouse=True)
def _signals_as_in_a_terminal() -> Iterator[None]:
    """A shell that starts pytest in the background has SIGINT ignored, and what ran before may have taken SIGTERM."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Anything:
    pass


def _send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.001)  # a moment in which Python sees it


def _work(begin: Callable[[], object]) -> None:
    begin()
    for _ in range(500):
        time.sleep(0.01)


def test_sigterm_is_a_stop_with_its_own_status():
    assert issubclass(Terminated, KeyboardInterrupt)
    assert Terminated.status == 128 + signal.SIGTERM


@each_signal
def test_a_signal_stops_the_work(number, error):
    with terminable(), pytest.raises(error):
        _work(lambda: _send(number))


@each_signal
def test_a_signal_that_meets_a_weak_references_callback_stops_the_work_too(number, error):
    things, went_on = [Anything()], []
    reference = weakref.ref(things[0], lambda _: _send(number))

    def begin() -> None:
        things.clear()
        went_on.append(reference)

    with terminable(), pytest.raises(error):
        _work(begin)
    assert went_on == [reference], "the callback dropped the first one"


def test_other_dropped_exceptions_are_told_as_ever(monkeypatch):
    told: list[type] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))
    thing = Anything()
    reference = weakref.ref(thing, lambda _: 1 / 0)
    with terminable():
        del thing
    assert reference() is None
    assert told == [ZeroDivisionError]


def test_everything_is_as_before_afterwards():
    before = signal.getsignal(signal.SIGTERM), sys.unraisablehook
    with terminable():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), sys.unraisablehook) == before


def test_another_thread_changes_nothing():
    found = []

    def inside() -> None:
        with terminable():
            found.append((signal.getsignal(signal.SIGTERM), sys.unraisablehook))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [(signal.getsignal(signal.SIGTERM), sys.unraisablehook)]
