"""The dashboard asks for metrics and labels that exist, and has what Grafana wants of a dashboard that is imported."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from ray.util.metrics import Counter, Histogram, Metric

from dpscale.scheduler.gauges import Gauges
from dpscale.scheduler.messages import Role
from dpscale.scheduler.records import Phase
from tests.unit.cluster.manifests import GRAFANA, ROOT, built, of_kind

FILE = GRAFANA / "dpscale.json"
BY_RAY = {"SessionName"}
"""A label that Ray adds to every metric (open_telemetry_metric_recorder.py)."""
BY_PROMETHEUS = {"namespace"}
"""A label that a PodMonitor adds."""
VALUES = {"phase": {phase.value for phase in Phase}, "role": {role.value for role in Role}}
FUNCTIONS = {"sum", "by", "rate", "delta", "clamp_min", "histogram_quantile"}


def exported(metric: Metric) -> set[str]:
    """Names of its series: Ray puts `ray_` before, OpenTelemetry's exporter for Prometheus ends counters and splits histograms."""
    name = f"ray_{metric.info['name']}"
    if isinstance(metric, Histogram):
        return {f"{name}_{part}" for part in ("bucket", "sum", "count")}
    return {f"{name}_total" if isinstance(metric, Counter) else name}


@pytest.fixture(scope="module")
def labels() -> dict[str, set[str]]:
    """Of each exported series the labels that dpscale registers, `le` for buckets."""
    found: dict[str, set[str]] = {}
    for metric in vars(Gauges()).values():
        for name in exported(metric):
            found[name] = set(metric.info["tag_keys"]) | ({"le"} if name.endswith("_bucket") else set())
    return found


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return json.loads(FILE.read_text())


def targets(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [target for panel in dashboard["panels"] for target in panel["targets"]]


def mistakes(expression: str, labels: dict[str, set[str]]) -> list[str]:
    """What in an expression (PromQL) names nothing that is there."""
    found = []
    metrics = re.findall(r"\bray_\w+", expression)
    for metric in metrics:
        if metric not in labels:
            found.append(f"no metric {metric}")
    for metric, selector in re.findall(r"(ray_\w+)\{([^}]*)\}", expression):
        for label, value in re.findall(r'(\w+)\s*=~?\s*"([^"]*)"', selector):
            if label not in labels.get(metric, set()) | BY_RAY | BY_PROMETHEUS:
                found.append(f"{metric} has no label {label}")
            if label in VALUES and value not in VALUES[label]:
                found.append(f"{label} is never {value}")
    for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
        for label in re.split(r",\s*", grouped):
            found += [f"{metric} has no label {label}" for metric in metrics if label not in labels.get(metric, set())]
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\bby \([^)]*\)", " ", expression)
    found += [f"unknown word {word}" for word in re.findall(r"[A-Za-z_]\w*", bare) if word not in labels and word not in FUNCTIONS]
    return found


def test_expressions_name_what_is_registered(dashboard, labels):
    for target in targets(dashboard):
        assert mistakes(target["expr"], labels) == [], target["expr"]
        assert target["expr"].count("(") == target["expr"].count(")")


@pytest.mark.parametrize(
    ("expression", "mistake"),
    [
        ('sum(ray_dpscale_videoz{phase="done"})', "no metric ray_dpscale_videoz"),
        ('sum(ray_dpscale_videos{state="done"})', "ray_dpscale_videos has no label state"),
        ('sum(ray_dpscale_videos{phase="ready"})', "phase is never ready"),
        ("sum by (role) (ray_dpscale_videos)", "ray_dpscale_videos has no label role"),
        ("sum by (le) (ray_dpscale_work_seconds_sum)", "ray_dpscale_work_seconds_sum has no label le"),
        ("sum(dpscale_actors)", "unknown word dpscale_actors"),
    ],
)
def test_the_check_sees_mistakes(labels, expression, mistake):
    assert mistake in mistakes(expression, labels)


def test_every_metric_is_shown(dashboard):
    shown = " ".join(target["expr"] for target in targets(dashboard))
    for metric in vars(Gauges()).values():
        assert any(re.search(rf"\b{name}\b", shown) for name in exported(metric)), metric.info["name"]


def test_legends_name_labels_that_are_left(dashboard):
    for target in targets(dashboard):
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            assert re.search(rf"\bby \([^)]*\b{label}\b", target["expr"]), target


def test_every_series_is_of_the_chosen_tenant_and_cluster(dashboard):
    for target in targets(dashboard):
        for selector in re.findall(r"ray_\w+(\{[^}]*\}|)", target["expr"]):
            assert selector.startswith('{namespace=~"$namespace", SessionName=~"$session"'), target["expr"]


def test_the_store_is_chosen_on_the_page_not_named(dashboard):
    """Another Grafana calls its Prometheus otherwise, so each panel and query takes the one of the variable."""
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    wanted = {"type": "prometheus", "uid": "${datasource}"}
    queries = [variable for variable in variables.values() if variable["type"] == "query"]
    for holder in [*dashboard["panels"], *targets(dashboard), *queries]:
        assert holder["datasource"] == wanted
    assert set(re.findall(r"\$(\w+)", json.dumps([target["expr"] for target in targets(dashboard)]))) <= {*variables, "__rate_interval"}


def test_variables_ask_for_labels_that_are_there(dashboard, labels):
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((ray_\w+)(?:\{.*\})?, (\w+)\)", variable["query"]["query"]).groups()
            assert metric in labels
            assert label in labels[metric] | BY_RAY | BY_PROMETHEUS
            assert variable["allValue"] == ".*", "also series without the label, where no PodMonitor adds it"


def test_grafana_can_import_it(dashboard):
    assert dashboard["schemaVersion"] >= 36, "references to data sources by type and uid"
    assert "id" not in dashboard, "of the database it comes from: Grafana would overwrite whatever has that number"
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}", dashboard["uid"])
    assert dashboard["title"]
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(numbers) == len(set(numbers)) > 0
    for panel in dashboard["panels"]:
        assert panel["title"]
        assert panel["type"] in {"stat", "timeseries"}
        assert [target["refId"] for target in panel["targets"]] == ["A", "B", "C"][: len(panel["targets"])] != []


def test_panels_lie_on_the_grid_and_do_not_overlap(dashboard):
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    for place in places:
        assert place["x"] >= 0 <= place["y"]
        assert 0 < place["w"] <= 24 - place["x"]
        assert place["h"] > 0
    for one, other in itertools.combinations(places, 2):
        apart = any(first[axis] + first[size] <= second[axis] for axis, size in ("xw", "yh") for first, second in ((one, other), (other, one)))
        assert apart, (one, other)


def test_the_sidecar_finds_it():
    (manifest,) = built(GRAFANA)
    (dashboards,) = of_kind([manifest], "ConfigMap")
    assert dashboards["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert dashboards["metadata"]["namespace"] == "monitoring", "beside Prometheus, which NetworkPolicy lets in from there"
    assert dashboards["data"] == {FILE.name: FILE.read_text()}


def test_the_pages_say_how_to_get_it():
    assert "kubectl apply -k cluster/grafana" in (ROOT / "docs" / "kubernetes.md").read_text()
    assert Path("cluster/grafana/dpscale.json").as_posix() in (ROOT / "docs" / "scheduler.md").read_text()
