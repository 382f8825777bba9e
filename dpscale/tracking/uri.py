"""A tracking URI before MLflow sees it: what can never work is an error, a server that is away is noticed in seconds."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

import sqlalchemy
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from dpscale.data.types import InputError
from dpscale.tracking.lane import Outage
from dpscale.tracking.names import VARIABLE, shown

CONNECT_S = 3
SERVER_PORTS = {"http": 80, "https": 443}
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def expanded(uri: str) -> str:
    """`uri` with ``${NAME}`` replaced by that variable of the environment: so no password need stand in a file.

    Raises InputError where it is not set."""
    missing = [name for name in VARIABLE.findall(uri) if name not in os.environ]
    if missing:
        raise InputError(f"tracking.uri = {shown(uri)!r}: the environment has no {', '.join(missing)}; set it where the job runs")
    return VARIABLE.sub(lambda found: os.environ[found.group(1)], uri)


def check_uri(uri: str) -> None:
    """Raises InputError where the text itself is wrong. Schemes that are not known here are left to MLflow."""
    scheme = _scheme(uri)
    if scheme in SERVER_PORTS and "@" in urlsplit(uri).netloc:
        raise InputError(f"tracking.uri = {shown(uri)!r} holds a password; give it in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    if scheme == "sqlite" and not uri.startswith("sqlite:////"):
        # Workers run in folders of their own, so a relative database would be another one in each.
        raise InputError(f"tracking.uri = {uri!r} is relative; give an absolute path (sqlite:////...), or leave it out")
    if scheme in SERVER_PORTS or scheme in DATABASE_PORTS:
        try:
            host, _ = _address(uri, scheme)
        except ValueError as error:
            raise InputError(f"tracking.uri = {shown(uri)!r} has no valid port; write {scheme}://host:port") from error
        if not host:
            raise InputError(f"tracking.uri = {shown(uri)!r} names no host; write {scheme}://host:port")


def check_answers(uri: str) -> None:
    """Raises Outage where nobody listens, InputError where a database is there and refuses the user. MLflow itself would try for minutes."""
    scheme = _scheme(uri)
    if scheme not in SERVER_PORTS and scheme not in DATABASE_PORTS:
        return
    try:
        socket.create_connection(_address(uri, scheme), timeout=CONNECT_S).close()
    except OSError as error:
        raise Outage(f"MLflow at {shown(uri)} does not answer ({error})") from error
    if scheme in DATABASE_PORTS:
        _check_database(uri)


def _check_database(uri: str) -> None:
    try:
        engine = sqlalchemy.create_engine(uri)
        engine.connect().close()
        engine.dispose()
    except ModuleNotFoundError as error:
        raise InputError(
            f"tracking.uri = {shown(uri)!r} needs the Python package {error.name!r}: install it, or put an MLflow server between"
        ) from error
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise InputError(f"tracking.uri: the database at {shown(uri)} refuses ({reason}); correct user, password or name of the database") from error


def _address(uri: str, scheme: str) -> tuple[str, int]:
    if scheme in SERVER_PORTS:
        parts = urlsplit(uri)
        return parts.hostname or "", parts.port or SERVER_PORTS[scheme]
    url = make_url(uri)
    return url.host or "", url.port or DATABASE_PORTS[scheme]


def _scheme(uri: str) -> str:
    """ "postgresql+psycopg2://..." -> "postgresql"."""
    return uri.partition(":")[0].partition("+")[0].lower()
