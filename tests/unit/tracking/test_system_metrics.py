from __future__ import annotations

import math

import pytest

from dpscale.tracking.names import safe_key
from dpscale.tracking.system_metrics import NodeMeter, gpu_values


def test_a_node_is_measured():
    values = NodeMeter().measure()
    assert {"cpu_utilization_percentage", "system_memory_usage_megabytes", "disk_available_megabytes"} <= values.keys()
    for name, value in values.items():
        assert math.isfinite(value), name
        assert value >= 0, name
        assert safe_key(name) == name
        if name.endswith("percentage"):
            assert value <= 100, name


def test_cards_are_read_and_what_they_do_not_report_is_left_out():
    text = "0, 37, 1024, 81559, 71.53\n1, [N/A], 0, 81559, [N/A]\n"
    values = gpu_values(text)
    assert values["gpu_0_utilization_percentage"] == 37
    assert values["gpu_0_memory_usage_megabytes"] == pytest.approx(1073.74, abs=0.01)
    assert values["gpu_0_memory_usage_percentage"] == pytest.approx(1.2555, abs=1e-3)
    assert values["gpu_0_power_usage_watts"] == 71.53
    assert set(values) - {name for name in values if name.startswith("gpu_0")} == {"gpu_1_memory_usage_megabytes", "gpu_1_memory_usage_percentage"}
    assert gpu_values("") == {}
