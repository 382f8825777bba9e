"""How a job stops. The session itself: tests/ray/test_ray_session.py."""

from __future__ import annotations

import signal

from jobs.cluster_session import Terminated


def test_sigterm_is_a_stop_with_its_own_status():
    assert issubclass(Terminated, KeyboardInterrupt)
    assert Terminated.status == 128 + signal.SIGTERM
