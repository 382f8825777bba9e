"""Every manifest against the schemas of Kubernetes and KubeRay, with unknown fields as errors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.unit.cluster.manifests import BUILDS, GRAFANA, JOBS, OVERLAYS, built, name_of, of_kind, pods

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed (it is one of the extra `dev`)")

KUBERNETES = "1.33"
OTHERS = {"RayCluster", "RayJob", "PodMonitor"}
"""Kinds that Kubernetes itself does not know."""


def strict(schema: Any) -> Any:
    """A schema of a custom resource in which unknown fields are errors, as Kubernetes' own API server sees them on request."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    own = {key: strict(value) for key, value in schema.items() if key != "format"}
    closed = "properties" in schema and isinstance(schema["properties"], dict) and not schema.get("x-kubernetes-preserve-unknown-fields")
    return {"additionalProperties": False, **own} if closed and schema.get("type") == "object" else own


@pytest.fixture(scope="module")
def crds() -> dict[str, Any]:
    """Schemas by kind."""
    folder = os.environ.get("DPSCALE_KUBERAY_CRDS")
    if not folder:
        pytest.skip("DPSCALE_KUBERAY_CRDS is not set: a folder with rayclusters.v1.schema.json and rayjobs.v1.schema.json of KubeRay")
    schemas = {}
    for kind in ("RayCluster", "RayJob"):
        schema = strict(json.loads((Path(folder) / f"{kind.lower()}s.v1.schema.json").read_text()))
        schemas[kind] = {**schema, "properties": {**schema["properties"], "metadata": {"type": "object"}}}
    return schemas


def mistakes(crds: dict[str, Any], manifest: dict[str, Any]) -> list[str]:
    checker = jsonschema.Draft202012Validator(crds[manifest["kind"]])
    return [f"{error.json_path}: {error.message[:200]}" for error in checker.iter_errors(manifest)]


@pytest.mark.parametrize("folder", [*OVERLAYS, *JOBS], ids=name_of)
def test_ray_manifests_follow_kuberays_schemas(crds, folder):
    (manifest,) = [manifest for manifest in built(folder) if manifest["kind"] in crds]
    assert mistakes(crds, manifest) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda spec: spec["workerGroupSpecs"][0].update(minReplica=1), "minReplica"),
        (lambda spec: spec["authOptions"].update(mode="tokens"), "tokens"),
        (lambda spec: spec["workerGroupSpecs"][0]["template"]["spec"].update(tolerationz=[]), "tolerationz"),
        (lambda spec: spec["workerGroupSpecs"][0].update(maxReplicas="many"), "many"),
    ],
)
def test_the_schema_check_sees_mistakes(crds, change, complaint):
    (cluster,) = of_kind(built(OVERLAYS[0]), "RayCluster")
    change(cluster["spec"])
    assert complaint in "\n".join(mistakes(crds, cluster))


@pytest.mark.parametrize("folder", [*BUILDS, GRAFANA], ids=name_of)
def test_manifests_follow_kubernetes_schemas(folder):
    own = [manifest for manifest in built(folder) if manifest["kind"] not in OTHERS]
    assert own
    for manifest in own:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize("folder", BUILDS, ids=name_of)
def test_pods_of_every_kind_follow_kubernetes_schema(folder):
    specs = pods(built(folder))
    assert specs
    for spec in specs:
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}, KUBERNETES, strict=True)


def test_kubernetes_schema_sees_mistakes():
    (claim,) = of_kind(built(OVERLAYS[0]), "PersistentVolumeClaim")
    claim["spec"]["accessMode"] = claim["spec"].pop("accessModes")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(claim, KUBERNETES, strict=True)
