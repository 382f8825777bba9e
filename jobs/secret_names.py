"""Variables that a submitted job needs on the cluster's nodes and of which only the names travel."""

from __future__ import annotations

from collections.abc import Mapping

from dpscale.config.schema import Config, TrackingConfig
from dpscale.tracking.names import VARIABLE

_OF_MLFLOW = "MLFLOW_TRACKING_"
"""Who one is to an MLflow server, and how it is reached: user, password, token, certificates."""


def secret_names(config: Config, environment: Mapping[str, str]) -> list[str]:
    """Those that the settings name, and those that an MLflow server is spoken to with from here (`environment`: of this machine)."""
    submit = config.ray.submit
    implied = [*_named_in_uri(config.tracking), *_of_mlflow(config.tracking, environment)]
    return list(dict.fromkeys([*submit.secrets, *(name for name in implied if name not in submit.forward)]))


def _named_in_uri(tracking: TrackingConfig) -> list[str]:
    return VARIABLE.findall(tracking.uri or "") if tracking.kind == "mlflow" else []


def _of_mlflow(tracking: TrackingConfig, environment: Mapping[str, str]) -> list[str]:
    """None where there is no server. A URI that is itself a variable may be one."""
    if tracking.kind != "mlflow" or not (tracking.uri or "").lower().startswith(("http://", "https://", "${")):
        return []
    names = sorted(name for name in environment if name.startswith(_OF_MLFLOW) and environment[name])
    return [name for name in names if name != "MLFLOW_TRACKING_URI"]  # tracking.uri says where
