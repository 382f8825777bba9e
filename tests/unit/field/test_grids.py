from __future__ import annotations

import importlib.machinery
import sys
import types

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from dpscale.config.schema import HashGridConfig
from dpscale.data.types import InputError
from dpscale.field.grids import TinyCudaGrid, hash_grid
from dpscale.field.hash_grid import HashGrid

CONFIG = HashGridConfig(n_levels=3, log2_hashmap_size=8, base_resolution=4)


def test_the_kind_decides() -> None:
    reference = hash_grid(CONFIG.model_copy(update={"kind": "reference"}), 2, torch.Generator().manual_seed(0))
    assert type(reference) is HashGrid


def test_a_reference_may_have_a_bfloat16_table() -> None:
    rounded = CONFIG.model_copy(update={"kind": "reference", "table_dtype": "bfloat16"})
    grid = hash_grid(rounded, 2, torch.Generator().manual_seed(0))
    exact = hash_grid(CONFIG.model_copy(update={"kind": "reference"}), 2, torch.Generator().manual_seed(0))
    points = torch.rand(9, 2)
    assert grid(points).dtype == torch.float32
    torch.testing.assert_close(grid(points), exact(points), rtol=0, atol=1e-4 * 2**-8)


def test_tiny_cuda_nn_says_how_to_get_it_where_it_is_missing() -> None:
    if importlib.util.find_spec("tinycudann"):
        pytest.skip("it is installed")
    with pytest.raises(InputError, match=r"pip install git\+https.*kind = fused"):
        hash_grid(CONFIG.model_copy(update={"kind": "tiny_cuda_nn"}), 3, torch.Generator())


def test_tiny_cuda_nn_gets_the_same_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a recorder of its interface (bindings/torch/tinycudann/modules.py: Encoding), as it needs CUDA to be built."""
    asked = {}

    class Encoding(nn.Module):
        def __init__(self, n_input_dims, encoding_config, seed=1337, dtype=None) -> None:
            super().__init__()
            asked.update(dims=n_input_dims, config=encoding_config, dtype=dtype)

        def forward(self, points):
            return points.repeat(1, 2)

    module = types.ModuleType("tinycudann")
    module.Encoding = Encoding
    module.__spec__ = importlib.machinery.ModuleSpec("tinycudann", None)
    monkeypatch.setitem(sys.modules, "tinycudann", module)
    grid = TinyCudaGrid(CONFIG, 3, torch.Generator().manual_seed(0))
    sizes = {"n_levels": 3, "n_features_per_level": 2, "log2_hashmap_size": 8, "base_resolution": 4, "per_level_scale": 1.38}
    assert asked == {"dims": 3, "config": {"otype": "HashGrid", "interpolation": "Linear", **sizes}, "dtype": torch.float32}
    assert grid.num_features == 6
    assert grid(torch.tensor([[2.0, 0.5, -1.0]])).tolist() == [[1.0, 0.5, 0.0] * 2], "beyond the border the border's value"


def test_tiny_cuda_nn_with_bfloat16_is_refused() -> None:
    with pytest.raises(ValidationError, match="needs kind = fused or reference"):
        HashGridConfig(kind="tiny_cuda_nn", table_dtype="bfloat16")
