from __future__ import annotations

import pytest

from dpscale.data.types import Clip
from dpscale.diffusion.weights import PoseVideoModel
from tests.small_performer import small_clip, small_model


@pytest.fixture(scope="module")
def model() -> PoseVideoModel:
    return small_model()


@pytest.fixture(scope="module")
def clip(model: PoseVideoModel) -> Clip:
    return small_clip("ann", model)
