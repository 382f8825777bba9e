"""How a job is submitted to a Ray cluster. Part of `schema.py`, which exports it."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator

from dpscale.config.section import Section

EnvironmentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Name of an environment variable.")]

SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
"""Environment variables of such names hold secrets, or the paths of files with secrets: their values never leave the machine."""


class SubmitConfig(Section):
    """Only `dpscale JOB --submit ADDRESS` reads these."""

    python: str = Field(
        default="python", pattern=r"^[A-Za-z0-9._/+-]+$", description="Interpreter of the job on the cluster: a name on the nodes' PATH, or a path."
    )
    install: bool = Field(
        default=False,
        description="Install the pinned packages (constraints.txt, requirements-data.txt) for the job on every node; false: use what the image has.",
    )
    secrets: tuple[EnvironmentName, ...] = Field(
        default=(), description="Environment variables that every node must have, for example AWS_SECRET_ACCESS_KEY. Only these names travel."
    )
    forward: tuple[EnvironmentName, ...] = Field(
        default=("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "MLFLOW_S3_ENDPOINT_URL", "GOOGLE_CLOUD_PROJECT"),
        description="Environment variables whose values travel, where they are set here. No secrets: everybody on the cluster may read them.",
    )

    @field_validator("forward")
    @classmethod
    def _forwards_no_secret(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if SECRET_NAME.search(name):
                raise ValueError(f"ray.submit.forward: {name} may hold a secret; name it in ray.submit.secrets and set it on the cluster's nodes")
        return names
