"""The files for `ray up`, with the places filled in that docs/ray_up.md fills in with envsubst, and prepared as `ray up` prepares them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.unit.cluster.manifests import CLUSTER

RAY_UP = sorted((CLUSTER / "ray_up").glob("*.yaml"))
PLACE = re.compile(r"\$\{(\w+)\}")


def filled_in(path: Path) -> dict[str, Any]:
    """Raises what `ray up` raises where the file is wrong."""
    config = prepare_config(yaml.safe_load(PLACE.sub(lambda place: place[1].lower(), path.read_text())))
    validate_config(config)
    return config
