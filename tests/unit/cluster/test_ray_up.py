"""cluster/ray_up, by Ray's own checks and by ours."""

from __future__ import annotations

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.scripts.scripts import start

from tests.unit.cluster.manifests import ROOT, pinned
from tests.unit.cluster.ray_up_files import PLACE, RAY_UP, filled_in

each_file = pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.stem)
OPTIONS_OF_START = {name for option in start.params for name in option.opts}


def test_both_clouds_are_there():
    assert [path.stem for path in RAY_UP] == ["aws", "gcp"]


@each_file
def test_ray_takes_the_file(path):
    assert filled_in(path)["cluster_name"] == "dpscale"


@each_file
def test_ray_would_refuse_a_mistyped_key(path, tmp_path):
    copy = tmp_path / path.name
    copy.write_text(path.read_text().replace("idle_timeout_minutes", "idle_timeout_minute"))
    with pytest.raises(ValidationError):
        filled_in(copy)


@each_file
def test_every_machine_runs_its_image_with_the_pinned_ray(path):
    config = AutoscalingConfig(filled_in(path), skip_content_hash=True)
    for name, group in filled_in(path)["available_node_types"].items():
        kind = "cuda" if group["resources"].get("GPU") else "cpu"
        assert config.get_docker_config(name)["image"] == f"dpscale_registry/dpscale-{kind}:ray{pinned('ray')}"


@each_file
def test_the_head_does_no_work_and_groups_grow_from_nothing(path):
    config = filled_in(path)
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0}
    workers = [group for name, group in types.items() if name != config["head_node_type"]]
    assert all(group["min_workers"] == 0 < group["max_workers"] for group in workers)
    assert sum(group["max_workers"] for group in workers) == config["max_workers"]


@each_file
def test_ray_starts_with_options_that_it_has_a_token_and_no_open_dashboard(path):
    config = filled_in(path)
    commands = [command for key in ("head_start_ray_commands", "worker_start_ray_commands") for command in config[key] if "ray start" in command]
    assert len(commands) == 2
    for command in commands:
        assert {word.split("=")[0] for word in command.split() if word.startswith("--")} <= OPTIONS_OF_START
    assert "--dashboard-host=127.0.0.1" in commands[0]
    assert "--num-cpus=0" in commands[0]
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}


@each_file
def test_the_page_fills_in_every_place(path):
    page = (ROOT / "docs" / "ray_up.md").read_text()
    places = set(PLACE.findall(path.read_text()))
    assert places
    for place in places:
        assert f"export {place}=" in page
        assert f"${place}" in page.partition(f"< cluster/ray_up/{path.name}")[0].rpartition("envsubst")[2]


@each_file
def test_the_file_itself_is_yaml(path):
    assert yaml.safe_load(path.read_text())["provider"]["type"] == path.stem
