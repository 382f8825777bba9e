"""The Kubernetes manifests of cluster/, as Kustomize builds them, and what to look for in them."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "cluster"
MLFLOW = CLUSTER / "mlflow" / "kubernetes"
GRAFANA = CLUSTER / "grafana"
OVERLAYS = sorted(path.parent for path in (CLUSTER / "kuberay" / "overlays").glob("*/kustomization.yaml"))
JOBS = sorted(path.parent for path in (CLUSTER / "kuberay" / "jobs").glob("*/kustomization.yaml"))
BUILDS = [*OVERLAYS, *JOBS, MLFLOW]

Manifest = dict[str, Any]


def name_of(folder: Path) -> str:
    return str(folder.relative_to(CLUSTER))


def pinned(package: str) -> str:
    """Version of `package` in constraints.txt."""
    found = re.search(rf"^{re.escape(package)}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found, f"constraints.txt does not pin {package}"
    return found[1]


def built(folder: Path) -> list[Manifest]:
    """What `kubectl apply -k folder` would send. Skips where neither kustomize nor kubectl is installed."""
    kustomize, kubectl = shutil.which("kustomize"), shutil.which("kubectl")
    if not kustomize and not kubectl:
        pytest.skip("neither kustomize nor kubectl is installed")
    return yaml.safe_load(_output(kustomize or str(kubectl), "build" if kustomize else "kustomize", folder))


@functools.cache
def _output(program: str, verb: str, folder: Path) -> str:
    text = subprocess.run([program, verb, str(folder)], capture_output=True, text=True, check=True, timeout=60).stdout
    return yaml.safe_dump(list(yaml.safe_load_all(text)))


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def ray_spec(manifests: list[Manifest]) -> Manifest:
    """Of the one Ray cluster in a build, whether it stands or comes with a job."""
    specs = [cluster["spec"] for cluster in of_kind(manifests, "RayCluster")]
    specs += [job["spec"]["rayClusterSpec"] for job in of_kind(manifests, "RayJob")]
    (spec,) = specs
    return spec


def group(spec: Manifest, name: str) -> Manifest:
    return next(group for group in spec["workerGroupSpecs"] if group["groupName"] == name)


def inside(node: Any, key: str) -> Iterator[Any]:
    """Every value under `key`, however deep."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from inside(value, key)
    elif isinstance(node, list):
        for item in node:
            yield from inside(item, key)


def pods(manifests: list[Manifest]) -> list[Manifest]:
    """Every pod's spec."""
    return [manifest for manifest in _mappings(manifests) if "containers" in manifest]


def containers(manifests: list[Manifest]) -> list[Manifest]:
    return [container for pod in pods(manifests) for container in [*pod["containers"], *pod.get("initContainers", [])]]


def _mappings(node: Any) -> Iterator[Manifest]:
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _mappings(item)
