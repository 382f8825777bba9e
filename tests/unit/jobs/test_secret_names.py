"""Which variables a submitted job asks for on the cluster. Their values stay where they are."""

from __future__ import annotations

import json

import pytest

from dpscale.config.load import check
from jobs.job_request import runtime_env
from jobs.secret_names import secret_names
from jobs.secret_values import refuse_passwords, refuse_secret_values, secret_values
from jobs.submission import Submission

PLANTED = "pl4nted-v4lue"
SERVER = "http://mlflow:5000"
HERE = {
    "MLFLOW_TRACKING_URI": f"https://ann:{PLANTED}@mlflow.example",
    "MLFLOW_TRACKING_USERNAME": "ann",
    "MLFLOW_TRACKING_PASSWORD": PLANTED,
    "MLFLOW_TRACKING_TOKEN": "",
    "MLFLOW_TRACKING_SERVER_CERT_PATH": "/home/ann/ca.pem",
    "MLFLOW_DB_PASSWORD": PLANTED,
    "MLFLOW_EXPERIMENT_NAME": "other",
    "AWS_SECRET_ACCESS_KEY": PLANTED,
}


def _names(tracking: dict[str, str], submit: dict[str, list[str]] | None = None) -> list[str]:
    return secret_names(check({"tracking": tracking, "ray": {"submit": submit or {}}}), HERE)


def test_a_server_is_asked_with_what_is_set_here():
    own = ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_USERNAME"]
    assert _names({"uri": SERVER}) == own
    assert _names({"uri": SERVER.upper()}) == own
    assert _names({"uri": "${MLFLOW_TRACKING_URI}"}) == ["MLFLOW_TRACKING_URI", *own]


@pytest.mark.parametrize(
    "tracking", [{}, {"uri": "sqlite:////shared/mlflow.db"}, {"uri": "postgresql://mlflow@db/mlflow"}, {"kind": "file", "uri": SERVER}]
)
def test_without_a_server_nothing_of_mlflow_is_asked_for(tracking: dict[str, str]):
    assert _names(tracking) == []


def test_a_reference_is_asked_for_whether_it_is_set_here_or_not():
    assert _names({"uri": "postgresql://${DB_USER}:${MLFLOW_DB_PASSWORD}@db/mlflow"}) == ["DB_USER", "MLFLOW_DB_PASSWORD"]


def test_what_the_settings_name_comes_first_and_once():
    submit = {"secrets": ["MLFLOW_TRACKING_USERNAME", "AWS_SECRET_ACCESS_KEY"], "forward": ["MLFLOW_TRACKING_SERVER_CERT_PATH"]}
    assert _names({"uri": SERVER}, submit) == ["MLFLOW_TRACKING_USERNAME", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD"]


@pytest.mark.parametrize("uri", ["postgresql://mlflow:${MLFLOW_DB_PASSWORD}@db/mlflow", "${MLFLOW_TRACKING_URI}", SERVER])
def test_names_travel_and_values_do_not(uri: str, tmp_path):
    config = check({"tracking": {"uri": uri}})
    sent = json.dumps([Submission("demo", config).metadata(), runtime_env(tmp_path / "job.zip", config.ray.submit, HERE), secret_names(config, HERE)])
    refuse_passwords("what is sent", sent)
    refuse_secret_values("what is sent", sent.encode(), secret_values(HERE))
    assert PLANTED not in sent
    assert uri in sent
