"""How busy one node is, under the names that MLflow's own monitor uses, so its interface finds them.

MLflow's monitor asks the server every time and ends for good when there is no answer, hence this one.
"""

from __future__ import annotations

import shutil
import subprocess

import psutil

_GPU_FIELDS = ("index", "utilization.gpu", "memory.used", "memory.total", "power.draw")
_NVIDIA_SMI_S = 5.0


class NodeMeter:
    """Measures the node that it runs on."""

    def __init__(self) -> None:
        psutil.cpu_percent()  # percent since the last call: the first has none
        self._nvidia_smi = shutil.which("nvidia-smi")
        self._network = psutil.net_io_counters()

    def measure(self) -> dict[str, float]:
        """Percentages, MB (10^6 bytes) and W of this moment; network traffic since the node's meter began."""
        memory, disk = psutil.virtual_memory(), psutil.disk_usage("/")
        values = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / 1e6,
            "system_memory_usage_percentage": memory.used / memory.total * 100,
            "disk_usage_megabytes": disk.used / 1e6,
            "disk_usage_percentage": disk.percent,
            "disk_available_megabytes": disk.free / 1e6,
        }
        return values | self._traffic() | (self._gpus() if self._nvidia_smi else {})

    def _traffic(self) -> dict[str, float]:
        now, before = psutil.net_io_counters(), self._network
        if now is None or before is None:  # a container without network devices
            return {}
        return {
            "network_receive_megabytes": (now.bytes_recv - before.bytes_recv) / 1e6,
            "network_transmit_megabytes": (now.bytes_sent - before.bytes_sent) / 1e6,
        }

    def _gpus(self) -> dict[str, float]:
        command = [str(self._nvidia_smi), f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader,nounits"]
        try:
            text = subprocess.run(command, capture_output=True, text=True, timeout=_NVIDIA_SMI_S, check=True).stdout
        except (OSError, subprocess.SubprocessError):  # a busy or failing driver: the next measurement may have it
            return {}
        return gpu_values(text)


def gpu_values(text: str) -> dict[str, float]:
    """From nvidia-smi's lines "index, %, MiB, MiB, W"; what a card does not report ("[N/A]") is left out."""
    values: dict[str, float] = {}
    for line in text.strip().splitlines():
        index, *numbers = [part.strip() for part in line.split(",")]
        busy, used, total, power = (_number(number) for number in numbers)
        found = {
            f"gpu_{index}_utilization_percentage": busy,
            f"gpu_{index}_memory_usage_megabytes": None if used is None else used * 2**20 / 1e6,
            f"gpu_{index}_memory_usage_percentage": None if used is None or not total else used / total * 100,
            f"gpu_{index}_power_usage_watts": power,
        }
        values |= {name: value for name, value in found.items() if value is not None}
    return values


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
