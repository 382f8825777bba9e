"""cluster/mlflow: the server's command line by MLflow's own parser, and that Kubernetes and compose say the same."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from mlflow.cli import server

from tests.unit.cluster.manifests import CLUSTER, MLFLOW, ROOT, built, containers, of_kind, pinned

COMPOSE = CLUSTER / "mlflow" / "compose.yaml"


def kubernetes_command() -> list[str]:
    (container,) = [container for container in containers(built(MLFLOW)) if container["name"] == "mlflow"]
    return [*container["command"], *container["args"]]


def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())["services"]


COMMANDS = {"kubernetes": kubernetes_command, "compose": lambda: compose()["mlflow"]["command"]}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_mlflow_takes_the_command(command):
    program, verb, *arguments = command()
    assert (program, verb) == ("mlflow", "server")
    options = server.make_context("server", arguments).params
    assert options["serve_artifacts"] is True
    assert options["artifacts_destination"].startswith("$")
    assert options["backend_store_uri"].startswith("postgresql://mlflow@")
    assert "*" not in options["allowed_hosts"]


def test_both_ways_start_the_same_server():
    database, hosts = r"@[\w-]+:5432", r"--allowed-hosts=.*"
    one, other = [
        {re.sub(hosts, "", re.sub(database, "@database:5432", re.sub(r"destination=.*", "", word))) for word in command()}
        for command in COMMANDS.values()
    ]
    assert one == other
    for image in ("postgres", "mlflow"):
        (container,) = [container for container in containers(built(MLFLOW)) if container["name"] == image]
        assert container["image"] == compose()[image]["image"]
    assert compose()["mlflow"]["image"] == f"dpscale-mlflow:{pinned('mlflow')}"


def test_the_server_answers_to_its_service_name():
    (service,) = [service for service in of_kind(built(MLFLOW), "Service") if service["metadata"]["name"] == "mlflow"]
    namespace, port = service["metadata"]["namespace"], service["spec"]["ports"][0]["port"]
    (hosts,) = [word.partition("=")[2].split(",") for word in kubernetes_command() if word.startswith("--allowed-hosts=")]
    assert {f"mlflow:{port}", f"mlflow.{namespace}.svc.cluster.local:{port}", f"localhost:{port}"} <= set(hosts)


def test_services_select_pods_that_are_there():
    labels = [kind["spec"]["template"]["metadata"]["labels"] for name in ("Deployment", "StatefulSet") for kind in of_kind(built(MLFLOW), name)]
    selectors = [service["spec"]["selector"] for service in of_kind(built(MLFLOW), "Service")]
    assert sorted(map(str, selectors)) == sorted(map(str, labels))


def test_compose_listens_on_loopback_and_demands_its_secrets():
    for service in compose().values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert service.keys() >= {"healthcheck", "restart", "deploy"}
        for name, value in service["environment"].items():
            if re.search("PASSWORD|KEY", name):
                assert value.startswith("${"), name
                assert ":?" in value, "an unset variable must stop compose"
    assert yaml.safe_load(COMPOSE.read_text())["networks"]["inside"]["internal"] is True
    assert compose()["postgres"]["networks"] == ["inside"]


def test_the_page_names_every_variable_of_compose():
    page = (ROOT / "docs" / "mlflow_server.md").read_text()
    for name in re.findall(r"\$\{(\w+):\?", COMPOSE.read_text()):
        assert f"{name}=" in page
