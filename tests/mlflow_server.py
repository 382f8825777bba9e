"""A real MLflow server on loopback, on Debian's Postgres where that is installed and on SQLite where not, to be killed and restarted."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy

START_S = 120
NO_POSTGRES = "no postgres and initdb on the PATH or in /usr/lib/postgresql (Debian: apt install postgresql): SQLite stands in"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def postgres_programs() -> Path | None:
    """The folder of initdb and postgres; None where Postgres is not installed."""
    on_path = shutil.which("initdb")
    found = [*([Path(on_path).resolve().parent] if on_path else []), *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    return next((folder for folder in found if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


@dataclass
class Postgres:
    """A database server of its own in a temporary folder."""

    programs: Path
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="dpscale-postgres-")))
    port: int = field(default_factory=free_port)
    password: str = field(default_factory=lambda: secrets.token_hex(16))
    process: subprocess.Popen | None = None

    def __post_init__(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self.password)
        if _user() is not None:
            shutil.chown(self.folder, _user())
            shutil.chown(secret, _user())
        how = ["--username=mlflow", "--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8", "--locale=C"]
        self._run([str(self.programs / "initdb"), *how, f"--pgdata={self.folder}/data"]).wait(START_S)
        secret.unlink()
        self.start()

    @property
    def uri(self) -> str:
        return f"postgresql://mlflow:{self.password}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        where = [f"--port={self.port}", "--listen_addresses=127.0.0.1", f"--unix_socket_directories={self.folder}"]
        self.process = self._run([str(self.programs / "postgres"), "-D", f"{self.folder}/data", *where])
        until(lambda: _listens(self.port), "postgres")
        until(self._answers, "postgres")

    def kill(self) -> None:
        """At once, without writing anything back: the next start has to recover."""
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(30)

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            rows(self.uri, "SELECT 1")
        except sqlalchemy.exc.OperationalError:  # recovering
            return False
        return True

    def _run(self, command: list[str]) -> subprocess.Popen:
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, user=_user(), start_new_session=True)


@dataclass
class MlflowServer:
    """`mlflow server` on `database`, with its artifacts in `folder`. Started by `start`."""

    database: str
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        where = ["--backend-store-uri", self.database, "--artifacts-destination", str(self.folder / "artifacts")]
        command = [sys.executable, "-m", "mlflow", "server", *where, "--host", "127.0.0.1", "--port", str(self.port), "--workers", "2"]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | quiet, cwd=self.folder, start_new_session=True)
        until(self._answers, "mlflow server")

    def kill(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False


@contextmanager
def mlflow_server(folder: Path) -> Iterator[tuple[MlflowServer, Postgres | None]]:
    """Both running; on Postgres if that is installed."""
    programs = postgres_programs()
    postgres = Postgres(programs) if programs else None
    server = MlflowServer(postgres.uri if postgres else f"sqlite:///{folder}/server.db", folder)
    try:
        server.start()
        yield server, postgres
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()
        if postgres is not None:
            postgres.stop()


def rows(database: str, query: str) -> list[tuple]:
    """Asks the server's database itself."""
    engine = sqlalchemy.create_engine(database)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sqlalchemy.text(query))]
    finally:
        engine.dispose()


def until(condition: Callable[[], bool], what: str, timeout_s: float = START_S, every_s: float = 0.1) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {timeout_s} s"
        time.sleep(every_s)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _user() -> str | None:
    """Postgres does not run as root: whose name it gets then."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
