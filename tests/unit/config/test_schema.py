"""What settings may not say together."""

import pytest
from pydantic import ValidationError

from dpscale.config.schema import Config


def test_offload_to_disk_needs_a_folder():
    with pytest.raises(ValidationError, match=r"finetune\.nvme_path: a folder"):
        Config.model_validate({"finetune": {"offload": "nvme"}})
    assert Config.model_validate({"finetune": {"offload": "nvme", "nvme_path": "/fast"}}).finetune.offload == "nvme"
