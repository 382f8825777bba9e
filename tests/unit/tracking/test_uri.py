from __future__ import annotations

import socket

import pytest

from dpscale.data.types import InputError
from dpscale.tracking.lane import Outage
from dpscale.tracking.uri import check_answers, check_uri, expanded
from tests.mlflow_server import free_port


@pytest.mark.parametrize(
    ("uri", "word"),
    [
        ("sqlite:///relative.db", "relative"),
        ("http://", "no host"),
        ("https://:5000", "no host"),
        ("http://host:port", "port"),
        ("http://ann:secret@host", "MLFLOW_TRACKING_PASSWORD"),
        ("postgresql:///mlflow", "no host"),
    ],
)
def test_what_can_never_work_is_named_with_its_remedy(uri, word):
    with pytest.raises(InputError, match=r"tracking\.uri") as error:
        check_uri(uri)
    assert word in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("uri", "spoiled"),
    [
        ("sqlite:////shared/mlflow.db", "sqlite:///shared/mlflow.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000x"),
        ("https://host/mlflow", "https:///mlflow"),
        ("postgresql+psycopg2://a:b@db/mlflow", "postgresql+psycopg2:///mlflow"),
        ("databricks", "http://ann:secret@databricks"),
    ],
)
def test_good_ones_pass_and_differ_little_from_bad_ones(uri, spoiled):
    check_uri(uri)
    with pytest.raises(InputError, match=r"tracking\.uri"):
        check_uri(spoiled)


def test_passwords_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("MLFLOW_DB_PASSWORD", "s3cret")
    assert expanded("postgresql://mlflow:${MLFLOW_DB_PASSWORD}@db/mlflow") == "postgresql://mlflow:s3cret@db/mlflow"
    with pytest.raises(InputError, match="NOT_SET_ANYWHERE"):
        expanded("postgresql://mlflow:${NOT_SET_ANYWHERE}@db/mlflow")


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_nobody_there_is_an_outage(scheme):
    with pytest.raises(Outage, match="does not answer"):
        check_answers(f"{scheme}://127.0.0.1:{free_port()}")


def test_somebody_there_is_enough_for_a_server():
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_answers(f"http://127.0.0.1:{server.getsockname()[1]}")
