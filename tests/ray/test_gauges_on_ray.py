"""Ray gives the scheduler's metrics to Prometheus under the names and labels that the dashboard asks for."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path

import pytest
import ray

from dpscale.scheduler.gauges import Gauges
from dpscale.scheduler.messages import Role
from dpscale.scheduler.records import Phase

ROOT = Path(__file__).parents[2]


def _exported() -> set[str]:
    """Series of the node's metrics port, each as `name label label ...`."""
    with urllib.request.urlopen(f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics", timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith("ray_dpscale_")]
    return {" ".join([line.split("{")[0], *re.findall(r'(\w+)="', line)]) for line in lines}


@pytest.mark.timeout(120)
def test_the_dashboards_names_are_those_that_ray_exports(ray_session):
    dashboard = json.loads((ROOT / "cluster" / "grafana" / "dpscale.json").read_text())
    asked = {name for panel in dashboard["panels"] for target in panel["targets"] for name in re.findall(r"ray_\w+", target["expr"])}
    figures = {f"videos/{phase.value}": 1 for phase in Phase} | {f"{name}/{role.value}": 1 for name in ("waiting", "actors", "busy") for role in Role}
    gauges, series = Gauges(), set[str]()
    until = time.monotonic() + 90
    while not asked <= {line.split()[0] for line in series}:
        assert time.monotonic() < until, asked - {line.split()[0] for line in series}
        gauges.show(figures)
        for role in Role:
            gauges.took(role, 4.0)
        gauges.failed()
        time.sleep(1)
        series |= _exported()
    assert all("SessionName" in line.split() for line in series)
