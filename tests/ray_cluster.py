"""A Ray cluster of several nodes on this machine, each a raylet in processes of its own, with token authentication."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
START_S = 90


class RayCluster:
    """A head without CPUs, as in cluster/, and workers that are added and killed."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(32)
        self.folder = Path(tempfile.mkdtemp(prefix="dps", dir="/tmp"))  # short: sockets lie below it
        self.gcs, self.dashboard = self._free_ports(2)
        self._nodes: list[subprocess.Popen[bytes]] = []
        self.workers: list[subprocess.Popen[bytes]] = []
        (self.folder / "token").write_text(self.token)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    def environment(self, **changed: str | None) -> dict[str, str]:
        """Of a client that has the token, in a home without one. None takes a variable away."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.folder / "token"), "HOME": str(self.folder), "OMP_NUM_THREADS": "1"}
        path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
        return {name: value for name, value in {**kept, **own, "PATH": path, "PYTHONPATH": str(ROOT), **changed}.items() if value is not None}

    def start_head(self) -> None:
        head = self._start("--head", f"--port={self.gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard}", "--num-cpus=0")
        self._wait(head, lambda: self.num_alive() == 1)

    def add_worker(self, num_cpus: int = 3, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        worker = self._start(f"--address=127.0.0.1:{self.gcs}", f"--num-cpus={num_cpus}", prefix=prefix)
        self.workers.append(worker)
        self._wait(worker, lambda: self.num_alive() >= 1 + len(self.workers))
        return worker

    def kill_worker(self, worker: subprocess.Popen[bytes]) -> None:
        """Returns when the head has noticed."""
        self.workers.remove(worker)
        self.kill(worker)
        self._wait(self._nodes[0], lambda: self.num_alive() <= 1 + len(self.workers))

    def num_alive(self) -> int:
        """Nodes that the head counts as alive; 0 while it does not answer."""
        request = urllib.request.Request(f"{self.url}/api/v0/nodes", headers={"Authorization": f"Bearer {self.token}"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return sum(node["state"] == "ALIVE" for node in json.load(answer)["data"]["result"]["result"])
        except OSError:
            return 0

    @staticmethod
    def kill(node: subprocess.Popen[bytes]) -> None:
        """SIGKILL to the raylet and to all that it started: a machine that goes."""
        try:
            processes = [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]
        except psutil.NoSuchProcess:
            return
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        node.wait(timeout=30)

    def close(self) -> None:
        for node in reversed(self._nodes):
            self.kill(node)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, *arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        agent, metrics, environment_agent = self._free_ports(3)
        ports = [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}", f"--runtime-env-agent-port={environment_agent}"]
        command = [*prefix, str(BIN / "ray"), "start", "--block", "--disable-usage-stats", "--object-store-memory=200000000", *ports, *arguments]
        # Raylets that share a session's folder take each other's working_dir away: each unpacks it anew where the other's job runs.
        command.append(f"--temp-dir={self.folder / f'ray{len(self._nodes)}'}")
        if "--head" in arguments:
            command.append(f"--ray-client-server-port={self._free_ports(1)[0]}")
        log = (self.folder / f"node{len(self._nodes)}.log").open("wb")
        # A node's own working folder holds no checkout, as on another machine.
        node_environment = self.environment(PYTHONPATH=None, DS_ACCELERATOR="cpu")
        node = subprocess.Popen(command, cwd=self.folder, env=node_environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        self._nodes.append(node)
        return node

    @staticmethod
    def _free_ports(count: int) -> list[int]:
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            return [each.getsockname()[1] for each in sockets]

    def _wait(self, node: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
        until = time.monotonic() + START_S
        while not condition():
            log = (self.folder / f"node{self._nodes.index(node)}.log").read_text()
            assert node.poll() is None, log
            assert time.monotonic() < until, log
            time.sleep(0.5)
