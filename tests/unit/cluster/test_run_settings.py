"""The settings in each overlay: those of a packaged preset, but for what fits them to the cluster."""

from __future__ import annotations

import pytest

from dpscale.config.load import load
from jobs.arguments import parser
from jobs.settings import config_of
from tests.unit.cluster.manifests import JOBS, OVERLAYS, ROOT, built, name_of, of_kind, ray_spec

PRESETS = {"local-kind": "tiny", "gpu-small": "tiny", "gpu-large": "sd21"}
OF_THE_CLUSTER = {
    "run": {"name", "root"},
    "ray": {"grow_wait_s"},
    "performers": None,
    "preprocess": {"num_actors", "encode_actors", "encode_gpus", "store"},
    "diffusion": {"weights"},
    "finetune": {"max_concurrent"},
    "scheduler": {"field_workers", "refresh_workers", "field_cpus", "field_gpus", "refresh_cpus", "refresh_gpus"},
}
"""Sections and keys; None: all of it."""


@pytest.mark.parametrize("folder", OVERLAYS, ids=name_of)
def test_settings_are_the_presets_but_for_the_cluster(folder):
    own = load(folder / "run.toml").model_dump()
    preset = load(ROOT / "jobs" / "configs" / f"{PRESETS[folder.name]}.toml").model_dump()
    for section, keys in OF_THE_CLUSTER.items():
        for settings in (own, preset):
            if keys is None:
                del settings[section]
            else:
                settings[section] = {key: value for key, value in settings[section].items() if key not in keys}
    assert own == preset


@pytest.mark.parametrize("folder", OVERLAYS, ids=name_of)
def test_the_driver_finds_the_settings_and_writes_to_the_shared_volume(folder):
    (settings,) = of_kind(built(folder), "ConfigMap")
    assert settings["data"] == {"run.toml": (folder / "run.toml").read_text()}
    config = load(folder / "run.toml")
    assert config.run.root.is_relative_to("/data")
    assert config.performers


@pytest.mark.parametrize("folder", [*OVERLAYS, *JOBS], ids=name_of)
def test_stages_wait_where_the_cluster_grows_and_only_there(folder):
    manifests = built(folder)
    overlay = next(path for path in OVERLAYS if folder.name.startswith(path.name))
    config = load(overlay / "run.toml")
    entrypoints = [job["spec"]["entrypoint"].split() for job in of_kind(manifests, "RayJob")]
    for program, *arguments in entrypoints:
        assert program == "dpscale"
        arguments[arguments.index("/etc/dpscale/run.toml")] = str(overlay / "run.toml")
        config = config_of(parser().parse_args(arguments))
    grows = any(group["minReplicas"] < group["maxReplicas"] for group in ray_spec(manifests)["workerGroupSpecs"])
    assert ((config.ray.grow_wait_s or 0) >= 600) == grows
