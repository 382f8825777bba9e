"""Ray as jobs start it."""

from __future__ import annotations

import os
import signal

import pytest

from dpscale.config.schema import RayConfig
from jobs.cluster_session import ray_session
from jobs.termination import Terminated

pytestmark = pytest.mark.usefixtures("ray_session")


def test_workers_have_their_variables():
    import ray

    @ray.remote(num_cpus=0.1)
    def environment() -> dict[str, str]:
        return dict(os.environ)

    assert ray.get(environment.remote())["OMP_NUM_THREADS"] == "1"


def test_a_local_ray_does_not_switch_authentication_on_for_later_clusters():
    assert os.environ["RAY_AUTH_MODE"] == "disabled" or os.environ["RAY_AUTH_TOKEN"]


def test_a_running_ray_is_used_and_left_running():
    import ray

    with ray_session(RayConfig(num_cpus=1)):
        assert ray.cluster_resources()["CPU"] == 4
    assert ray.is_initialized()


def test_sigterm_stops_a_job_like_ctrl_c():
    before = signal.getsignal(signal.SIGTERM)
    with ray_session(RayConfig()), pytest.raises(Terminated):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
