"""What settings may not say together."""

import pytest
from pydantic import ValidationError

from dpscale.config.schema import Config


def test_offload_to_disk_is_refused_before_anything_runs():
    with pytest.raises(ValidationError, match=r"finetune\.offload = nvme .*: set finetune\.offload = parameters"):
        Config.model_validate({"finetune": {"offload": "nvme", "nvme_path": "/fast"}})
