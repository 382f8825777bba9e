"""The command and the environment of a submitted job."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from ray.runtime_env import RuntimeEnv

from dpscale.config.load import ConfigError, check
from dpscale.data.types import InputError
from jobs.job_request import entrypoint, pinned, runtime_env
from jobs.submission import Submission
from jobs.working_tree import CHECKOUT

ENVIRONMENT = {
    "AWS_REGION": "eu-north-1",
    "AWS_SECRET_ACCESS_KEY": "pl4nted-v4lue",
    "MLFLOW_TRACKING_PASSWORD": "pl4nted-v4lue",
    "AWS_ENDPOINT_URL": "",
}


def test_the_command_is_one_shell_line():
    config = check({"ray": {"submit": {"python": "/opt/venv/bin/python"}}})
    words = shlex.split(entrypoint("dpscale-run-1", Submission("personalize", config, ("--retry-quarantined",))))
    assert words == ["/opt/venv/bin/python", "-m", "jobs.submitted", "dpscale-run-1", "personalize", "--retry-quarantined"]


def test_harmless_variables_travel_and_secrets_do_not():
    environment = runtime_env(Path("job.zip"), check({"ray": {"submit": {"secrets": ["AWS_SECRET_ACCESS_KEY"]}}}).ray.submit, ENVIRONMENT)
    assert environment == {"working_dir": "job.zip", "env_vars": {"AWS_REGION": "eu-north-1", "RAY_JOB_STOP_WAIT_TIME_S": "60"}}
    assert "pl4nted" not in str(environment)


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_PASSWORD", "google_application_credentials"])
def test_a_secret_cannot_be_named_among_those_that_travel(name: str):
    with pytest.raises(ConfigError, match=f"{name} may hold a secret; name it in ray.submit.secrets"):
        check({"ray": {"submit": {"forward": [name]}}})


@pytest.mark.parametrize("python", ["python; rm -rf /", "$(id)", "py thon"])
def test_the_interpreter_is_a_name_or_a_path(python: str):
    with pytest.raises(ConfigError, match=r"ray.submit.python"):
        check({"ray": {"submit": {"python": python}}})


def test_installing_takes_every_pinned_package_but_ray():
    environment = runtime_env(Path("/job.zip"), check({"ray": {"submit": {"install": True}}}).ray.submit, {})
    packages = environment["pip"]["packages"]  # type: ignore[index]
    assert {"torch", "pydantic", "mediapipe"} <= {line.split("==")[0] for line in packages}
    assert not [line for line in packages if line.startswith("ray==")]
    del environment["working_dir"]  # Ray looks whether it is there
    assert RuntimeEnv(**environment).to_dict()["pip"]["pip_install_options"][0] == "--no-deps"


def test_without_a_checkout_there_is_nothing_to_install_from(tmp_path: Path):
    assert pinned(CHECKOUT)
    with pytest.raises(InputError, match="submit from a checkout"):
        pinned(tmp_path)
