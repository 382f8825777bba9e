"""What schemas cannot say: versions that must agree, references that must resolve, limits, probes, and that nothing is open or secret by mistake."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest

from tests.unit.cluster.manifests import (
    BUILDS,
    CLUSTER,
    JOBS,
    MLFLOW,
    OVERLAYS,
    ROOT,
    Manifest,
    built,
    containers,
    group,
    inside,
    name_of,
    of_kind,
    pinned,
    pods,
    ray_spec,
)

RAY_BUILDS = [*OVERLAYS, *JOBS]
DOCS = {"kuberay": "docs/kubernetes.md", "mlflow": "docs/mlflow_server.md"}
SECRET_NAME = re.compile(r"TOKEN|PASSWORD|SECRET|ACCESS_KEY", re.IGNORECASE)
each_build = pytest.mark.parametrize("folder", BUILDS, ids=name_of)
each_ray_build = pytest.mark.parametrize("folder", RAY_BUILDS, ids=name_of)


@each_ray_build
def test_images_hold_the_pinned_ray(folder):
    spec = ray_spec(built(folder))
    assert spec["rayVersion"] == pinned("ray")
    images = {container["image"] for container in containers(built(folder))}
    assert images <= {f"dpscale-cpu:ray{pinned('ray')}", f"dpscale-cuda:ray{pinned('ray')}"}


@each_ray_build
def test_pods_with_gpus_run_the_image_for_them(folder):
    for container in containers(built(folder)):
        wanted = "dpscale-cuda" if "nvidia.com/gpu" in container["resources"]["limits"] else "dpscale-cpu"
        assert container["image"].startswith(f"{wanted}:"), container["name"]


@each_build
def test_every_container_is_bounded(folder):
    found = containers(built(folder))
    assert found
    for container in found:
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert requests.keys() == limits.keys() >= {"cpu", "memory"}
        assert requests.get("nvidia.com/gpu") == limits.get("nvidia.com/gpu"), "Kubernetes does not share a GPU between pods"


@each_build
def test_every_server_is_probed(folder):
    for container in containers(built(folder)):
        if container["name"] == "submitter":
            continue  # it runs to its end, and serves nobody
        assert container.keys() >= {"startupProbe", "readinessProbe", "livenessProbe"}, container["name"]
        started_within_s = container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"]
        assert started_within_s >= 300, "Ray, or a migration of MLflow's database, may take minutes"


@each_ray_build
def test_the_head_does_no_work(folder):
    head = ray_spec(built(folder))["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert not list(inside(head, "nvidia.com/gpu"))


@each_ray_build
def test_tokens_are_on_and_written_nowhere(folder):
    manifests = built(folder)
    assert ray_spec(manifests)["authOptions"]["mode"] == "token"
    assert not {env["name"] for container in containers(manifests) for env in container.get("env", [])} & {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}


@each_build
def test_secrets_come_by_reference_only(folder):
    manifests = built(folder)
    assert not of_kind(manifests, "Secret")
    for env in _variables(manifests):
        if SECRET_NAME.search(env["name"]) or env["name"].startswith("PGPASS"):
            assert set(env["valueFrom"]) == {"secretKeyRef"}, env["name"]
    assert not [value for value in _texts(manifests) if re.search(r"://[^/@\s]*:[^/@\s]*@", value)], "an address holds a password"


@each_build
def test_every_reference_resolves(folder):
    manifests = built(folder)
    there = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    for pod in pods(manifests):
        assert ("ServiceAccount", pod["serviceAccountName"]) in there
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        claimed = {claim["metadata"]["name"] for claims in inside(manifests, "volumeClaimTemplates") for claim in claims}
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in there
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes.keys() | claimed
            for source in container.get("envFrom", []):
                assert ("ConfigMap", source["configMapRef"]["name"]) in there


@each_build
def test_the_page_creates_every_secret(folder):
    page = (ROOT / DOCS[folder.relative_to(CLUSTER).parts[0]]).read_text().replace("\\\n", " ")
    made = {name: set(re.findall(r"--from-literal=(\w+)=", rest)) for name, rest in re.findall(r"create secret generic (\S+) (.*)", page)}
    for env in _variables(built(folder)):
        reference = env.get("valueFrom", {}).get("secretKeyRef")
        if reference:
            assert reference["key"] in made.get(reference["name"], set()), f"{reference} is not made on the page"


@each_build
def test_pods_are_as_the_restricted_standard_wants_them(folder):
    """Pod Security Standards, restricted, which the namespace enforces."""
    manifests = built(folder)
    for pod in pods(manifests):
        own = pod["securityContext"]
        assert own["runAsNonRoot"] is True
        assert own["runAsUser"] != 0
        assert own["seccompProfile"]["type"] == "RuntimeDefault"
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for volume in pod.get("volumes", []):
            assert volume.keys() - {"name"} <= {"configMap", "emptyDir", "persistentVolumeClaim"}
    contexts = [container["securityContext"] for container in containers(manifests)]
    for options in inside(manifests, "autoscalerOptions"):
        contexts.append(options["securityContext"])
    for context in contexts:
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]


@each_ray_build
def test_the_namespace_enforces_that_standard(folder):
    (namespace,) = of_kind(built(folder), "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {manifest["metadata"].get("namespace", namespace["metadata"]["name"]) for manifest in built(folder)} == {namespace["metadata"]["name"]}


@each_ray_build
def test_only_the_head_may_speak_to_kubernetes(folder):
    spec = ray_spec(built(folder))
    for worker in spec["workerGroupSpecs"]:
        assert worker["template"]["spec"]["automountServiceAccountToken"] is False
    assert spec["headGroupSpec"]["template"]["spec"]["serviceAccountName"] == "dpscale-head"


@each_ray_build
def test_every_ray_pod_is_behind_the_network_policy(folder):
    manifests = built(folder)
    (policy,) = [policy for policy in of_kind(manifests, "NetworkPolicy") if policy["metadata"]["name"] == "dpscale-ray"]
    wanted = policy["spec"]["podSelector"]["matchLabels"].items()
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    templates = [template for template in [*inside(manifests, "template"), *inside(manifests, "submitterPodTemplate")] if "spec" in template]
    assert len(templates) == len(pods(manifests))
    assert all(wanted <= template["metadata"]["labels"].items() for template in templates)


@pytest.mark.parametrize("folder", [MLFLOW], ids=name_of)
def test_mlflow_and_its_database_are_reached_by_the_next_in_line_only(folder):
    callers = {
        policy["metadata"]["name"]: [peer["podSelector"]["matchLabels"] for rule in policy["spec"]["ingress"] for peer in rule["from"]]
        for policy in of_kind(built(folder), "NetworkPolicy")
    }
    assert callers == {"mlflow": [{"app.kubernetes.io/part-of": "dpscale-ray"}], "mlflow-postgres": [{"app.kubernetes.io/name": "mlflow"}]}
    labels = [template["metadata"]["labels"]["app.kubernetes.io/name"] for template in inside(built(folder), "template")]
    assert sorted(labels) == sorted(callers)


@each_ray_build
def test_monitored_ports_exist(folder):
    named = {port["name"] for ports in inside(ray_spec(built(folder)), "ports") for port in ports} | {"metrics"}  # KubeRay adds that one
    for monitor in of_kind(built(folder), "PodMonitor"):
        assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= named


@each_ray_build
def test_the_gpu_groups_come_from_nothing_and_take_spot_machines(folder):
    spec = ray_spec(built(folder))
    groups = [worker for worker in spec["workerGroupSpecs"] if list(inside(worker, "nvidia.com/gpu"))]
    assert len(groups) == (0 if "local-kind" in folder.name else 2)
    for worker in groups:
        if spec["enableInTreeAutoscaling"]:
            assert worker["minReplicas"] == 0 < worker["maxReplicas"]
        keys = {toleration["key"] for toleration in worker["template"]["spec"]["tolerations"]}
        assert keys >= {"nvidia.com/gpu", "cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority", "dpscale/spot"}


@pytest.mark.parametrize("folder", JOBS, ids=name_of)
def test_a_job_carries_the_cluster_of_its_overlay(folder):
    overlay = next(path for path in OVERLAYS if folder.name.startswith(path.name))
    own, standing = ray_spec(built(folder)), ray_spec(built(overlay))
    assert not of_kind(built(folder), "RayCluster")
    if "kueue" not in folder.name:
        assert own == standing


def test_kueue_counts_whole_clusters():
    manifests = built(CLUSTER / "kuberay" / "jobs" / "gpu-small-kueue")
    (job,) = of_kind(manifests, "RayJob")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "dpscale"
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    spec = ray_spec(manifests)
    assert spec["enableInTreeAutoscaling"] is False
    for worker in spec["workerGroupSpecs"]:
        assert worker["replicas"] == worker["minReplicas"] == worker["maxReplicas"] >= 1


def test_the_groups_are_named_after_their_work():
    spec = ray_spec(built(CLUSTER / "kuberay" / "overlays" / "gpu-small"))
    assert [worker["groupName"] for worker in spec["workerGroupSpecs"]] == ["preprocess", "field", "refresh"]
    assert not list(inside(group(spec, "preprocess"), "nvidia.com/gpu"))


def _variables(manifests: list[Manifest]) -> list[Manifest]:
    return [env for container in containers(manifests) for env in container.get("env", [])]


def _texts(node: object) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
        yield from _texts(item)


def test_another_tenant_is_another_namespace(tmp_path):
    """As docs/kubernetes.md says, in a folder beside the overlays: Kustomize takes relative paths only."""
    shutil.copytree(CLUSTER / "kuberay", tmp_path / "kuberay")
    folder = tmp_path / "kuberay" / "tenant-b"
    folder.mkdir()
    page = (ROOT / DOCS["kuberay"]).read_text()
    (folder / "kustomization.yaml").write_text("".join(re.findall(r" {8}((?:namespace: tenant-b|resources: .*)\n)", page)))
    manifests = built(folder)
    (namespace,) = of_kind(manifests, "Namespace")
    assert namespace["metadata"]["name"] == "tenant-b"
    assert {manifest["metadata"]["namespace"] for manifest in manifests if manifest is not namespace} == {"tenant-b"}
