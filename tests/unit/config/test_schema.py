"""What settings may not say together."""

import pytest
from pydantic import ValidationError

from dpscale.config.schema import Config


def test_offload_to_disk_needs_a_folder():
    with pytest.raises(ValidationError, match=r"finetune\.nvme_path: a folder"):
        Config.model_validate({"finetune": {"offload": "nvme"}})
    assert Config.model_validate({"finetune": {"offload": "nvme", "nvme_path": "/fast"}}).finetune.offload == "nvme"


def test_workers_take_equal_parts_of_the_batch():
    with pytest.raises(ValidationError, match=r"finetune\.batch_clips = 3 must be a multiple of finetune\.num_workers = 2"):
        Config.model_validate({"finetune": {"batch_clips": 3, "num_workers": 2}})
    assert Config.model_validate({"finetune": {"batch_clips": 6, "num_workers": 2}}).finetune.clips_per_worker == 3
    assert Config.model_validate({"finetune": {"num_workers": 2}}).finetune.clips_per_worker == 1
    with pytest.raises(ValidationError, match=r"finetune\.offload takes one clip a worker"):
        Config.model_validate({"finetune": {"batch_clips": 2, "offload": "optimizer"}})


def test_a_background_layer_leaves_no_flow_to_the_background():
    with pytest.raises(ValidationError, match=r"field\.background\.layer keeps the background still by itself: set joint\.background_flow = false"):
        Config.model_validate({"field": {"background": {"layer": True}}, "joint": {"background_flow": True}})
    assert Config.model_validate({"field": {"background": {"layer": True}}}).field.background.layer
