"""The kinds of hash grid, by the name that the settings give them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpscale.config.schema import HashGridConfig
from dpscale.data.types import InputError
from dpscale.field import native
from dpscale.field.hash_grid import HashGrid
from dpscale.field.hash_grid_fused import FusedHashGrid

MakeGrid = Callable[[HashGridConfig, int, torch.Generator], nn.Module]


def hash_grid(config: HashGridConfig, num_dims: int, generator: torch.Generator) -> nn.Module:
    """points [S, num_dims] in [0, 1] -> features [S, num_features]."""
    return _KINDS[config.kind](config, num_dims, generator)


def _reference(config: HashGridConfig, num_dims: int, generator: torch.Generator) -> HashGrid:
    return HashGrid(config, num_dims, generator).to(getattr(torch, config.table_dtype))


def _fused(config: HashGridConfig, num_dims: int, generator: torch.Generator) -> HashGrid:
    """Without a compiler the reference, which native.library says once; CUDA, which has Triton, needs no compiler."""
    can = native.library() is not None or torch.cuda.is_available()
    return FusedHashGrid(config, num_dims, generator) if can else _reference(config, num_dims, generator)


class TinyCudaGrid(nn.Module):
    """NVIDIA's tiny-cuda-nn: CUDA only, and its own vertices, hash and layout, so that its checkpoints are its own."""

    def __init__(self, config: HashGridConfig, num_dims: int, generator: torch.Generator) -> None:
        super().__init__()
        if importlib.util.find_spec("tinycudann") is None:
            raise InputError(
                "kind = tiny_cuda_nn: tinycudann is not installed. Remedy: pip install "
                "git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch, or set kind = fused, which needs nothing"
            )
        import tinycudann  # compiled for one CUDA architecture: nobody else needs it

        sizes = config.model_dump(exclude={"kind", "table_dtype"})
        seed = int(torch.randint(2**31 - 1, (), generator=generator))
        self.encoding = tinycudann.Encoding(num_dims, {"otype": "HashGrid", "interpolation": "Linear", **sizes}, seed=seed, dtype=torch.float32)
        self.num_features = config.n_levels * config.n_features_per_level

    def forward(self, points: Float[Tensor, "S D"]) -> Float[Tensor, "S LF"]:
        return self.encoding(points.clamp(0, 1))


_KINDS: dict[str, MakeGrid] = {"fused": _fused, "reference": _reference, "tiny_cuda_nn": TinyCudaGrid}
