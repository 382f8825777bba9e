"""Who lands where: what a run asks of Ray, given to Ray's own autoscaler over the groups of each cluster file. No Ray is started."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from dpscale.config.load import load
from dpscale.config.schema import Config
from tests.unit.cluster.manifests import CLUSTER, built, name_of, of_kind
from tests.unit.cluster.ray_up_files import RAY_UP, filled_in

GPU_OVERLAYS = [CLUSTER / "kuberay" / "overlays" / name for name in ("gpu-small", "gpu-large")]
FINETUNE = {"CPU": 1.0, "GPU": 1.0}
"""finetune/on_ray.py: what a process that trains takes."""
PREPROCESS_CPUS = 0.5
"""preprocess/on_ray.py: of an actor."""


def of_kuberay(folder: Path) -> dict[str, Any]:
    """The autoscaler's view of the cluster, derived and checked by Ray."""
    (cluster,) = of_kind(built(folder), "RayCluster")
    return _derive_autoscaling_config_from_ray_cr(cluster)


def launched(configs: dict[str, Any], *demands: dict[str, float]) -> Counter[str]:
    """Pods or machines by group that the autoscaler adds to an empty cluster. Every demand must find a place."""
    types = AutoscalingConfig(configs, skip_content_hash=True).get_node_type_configs()
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=types,
        max_num_nodes=configs["max_workers"] + 1,
        resource_requests=ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(demand) for demand in demands]),
    )
    reply = ResourceDemandScheduler().schedule(request)
    assert not reply.infeasible_resource_requests
    added = Counter({launch.instance_type: launch.count for launch in reply.to_launch})
    return added - Counter({configs["head_node_type"]: 1})


def field(config: Config) -> dict[str, float]:
    return {"CPU": config.scheduler.field_cpus, "GPU": config.scheduler.field_gpus}


def refresh(config: Config) -> dict[str, float]:
    return {"CPU": config.scheduler.refresh_cpus, "GPU": config.scheduler.refresh_gpus}


@pytest.fixture(params=GPU_OVERLAYS, ids=name_of)
def cluster(request) -> tuple[dict[str, Any], Config]:
    return of_kuberay(request.param), load(request.param / "run.toml")


def test_a_field_worker_goes_to_the_fields(cluster):
    groups, config = cluster
    assert launched(groups, field(config)) == {"field": 1}


def test_fields_share_gpus(cluster):
    groups, config = cluster
    per_pod = groups["available_node_types"]["field"]["resources"]["GPU"] / config.scheduler.field_gpus
    assert per_pod >= 4
    assert launched(groups, *[field(config)] * int(per_pod)) == {"field": 1}
    assert launched(groups, *[field(config)] * (int(per_pod) + 1)) == {"field": 2}


def test_a_refresh_goes_to_the_refreshes_and_fits_nowhere_else(cluster):
    groups, config = cluster
    assert launched(groups, refresh(config)) == {"refresh": 1}
    assert refresh(config)["CPU"] > groups["available_node_types"]["field"]["resources"]["CPU"]


def test_preprocessing_wakes_no_gpu(cluster):
    groups, config = cluster
    assert launched(groups, *[{"CPU": PREPROCESS_CPUS}] * config.preprocess.num_actors).keys() == {"preprocess"}


def test_nothing_wakes_anything_when_there_is_nothing_to_do(cluster):
    assert launched(cluster[0]) == {}


def test_all_that_the_settings_ask_for_finds_a_place(cluster):
    """Stages follow each other: each has the cluster for itself. Ray Data needs a CPU of its own."""
    groups, config = cluster
    assert launched(groups, refresh(config), *[field(config)] * config.scheduler.field_workers)
    assert launched(groups, *[FINETUNE] * config.finetune.max_concurrent)
    encoders = [{"CPU": PREPROCESS_CPUS, "GPU": config.preprocess.encode_gpus}] * config.preprocess.encode_actors
    assert launched(groups, {"CPU": 1.0}, *encoders, *[{"CPU": PREPROCESS_CPUS}] * config.preprocess.num_actors)


@pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.stem)
def test_ray_up_files_place_work_as_kuberay_does(path):
    config = load(CLUSTER / "kuberay" / "overlays" / "gpu-small" / "run.toml")
    groups = filled_in(path)
    assert launched(groups, *[field(config)] * 4) == {"field": 1}
    assert launched(groups, refresh(config)) == {"refresh": 1}
    assert launched(groups, *[{"CPU": PREPROCESS_CPUS}] * config.preprocess.num_actors) == {"preprocess": 1}
