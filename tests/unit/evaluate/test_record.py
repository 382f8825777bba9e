from __future__ import annotations

from typing import get_args

from dpscale.config.schema import JointConfig
from dpscale.evaluate.record import METHODS, RESULTS, method_name


def test_the_result_is_called_by_the_method_that_made_it() -> None:
    assert set(RESULTS) == set(get_args(JointConfig.model_fields["method"].annotation))
    assert method_name({"joint_method": "image"}, "ivr_opt") == "Image Opt. (the result)"
    assert method_name({}, "ivr_opt") == "IVR Opt. (the result)", "records of earlier versions"
    assert method_name({"joint_method": "image"}, "warped") == METHODS["warped"]
