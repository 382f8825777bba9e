"""The hash grid against a twin that visits every vertex of every point in turn."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpscale.config.schema import HashGridConfig
from dpscale.field.hash_grid import HashGrid, level_resolutions, level_rows

SMALL = HashGridConfig(n_levels=4, n_features_per_level=2, log2_hashmap_size=8, base_resolution=3, per_level_scale=1.9)
PRIMES = (1, 2_654_435_761, 805_459_861)


def grid(config: HashGridConfig, num_dims: int, scale: float = 1.0) -> HashGrid:
    """A grid whose features are of order `scale`: at their initial +-1e-4 errors would hide."""
    made = HashGrid(config, num_dims, torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        made.table.uniform_(-scale, scale, generator=torch.Generator().manual_seed(1))
    return made


def slow_features(config: HashGridConfig, table: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    """Instant-NGP, section 3, one vertex at a time. `table` is [features, rows]."""
    features, first_row = [], 0
    for resolution, rows in zip(level_resolutions(config), level_rows(config, len(point)), strict=True):
        value = torch.zeros(config.n_features_per_level, dtype=torch.float64)
        scaled = [float(x.detach().clamp(0, 1)) * resolution for x in point]
        cell = [min(int(s), resolution - 1) for s in scaled]
        for corner in itertools.product((0, 1), repeat=len(point)):
            vertex = [c + k for c, k in zip(cell, corner, strict=True)]
            if (resolution + 1) ** len(point) <= 2**config.log2_hashmap_size:
                row = sum(v * (resolution + 1) ** axis for axis, v in enumerate(vertex))
            else:
                row = 0
                for v, prime in zip(vertex, PRIMES, strict=False):
                    row ^= v * prime
                row %= rows
            weight = torch.ones((), dtype=torch.float64)
            for x, c, k in zip(point, cell, corner, strict=True):
                fraction = x.clamp(0, 1) * resolution - c
                weight = weight * (fraction if k else 1 - fraction)
            value = value + weight * table[:, first_row + row]
        features.append(value)
        first_row += rows
    return torch.cat(features)


@pytest.mark.parametrize("num_dims", [2, 3])
def test_values_and_gradients_equal_the_slow_twin(num_dims: int) -> None:
    fast = grid(SMALL, num_dims)
    assert 0 < fast.num_dense < SMALL.n_levels, "the test must cover dense and hashed levels"
    points = torch.rand(40, num_dims, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 1.2 - 0.1
    edges = torch.tensor(list(itertools.product((0.0, 1.0), repeat=num_dims)), dtype=torch.float64)
    points = torch.cat([points, edges]).requires_grad_()
    slow_points, slow_table = points.detach().clone().requires_grad_(), fast.table.detach().clone().requires_grad_()
    values = fast(points)
    expected = torch.stack([slow_features(SMALL, slow_table, point) for point in slow_points])
    assert values.shape == (len(points), SMALL.n_levels * SMALL.n_features_per_level)
    torch.testing.assert_close(values, expected)
    weights = torch.rand(values.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    (values * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(fast.table.grad, slow_table.grad)
    torch.testing.assert_close(points.grad, slow_points.grad)


@pytest.mark.parametrize("num_dims", [2, 3])
def test_gradients_equal_finite_differences(num_dims: int) -> None:
    # Small, for every row of the table is shifted in turn; the second level is hashed in 3D.
    fast = grid(HashGridConfig(n_levels=2, n_features_per_level=1, log2_hashmap_size=8, base_resolution=2, per_level_scale=3.0), num_dims)
    # Away from cell borders, where the interpolation has a kink.
    points = (torch.rand(6, num_dims, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) * 0.9 + 0.03).requires_grad_()

    def features(points: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(fast, {"table": table}, (points,))

    assert torch.autograd.gradcheck(features, (points, fast.table.detach().clone().requires_grad_()), eps=1e-7, atol=1e-5)


@given(num_dims=st.sampled_from([2, 3]), levels=st.integers(1, 6), base=st.integers(2, 9), log2_size=st.integers(8, 12))
def test_every_row_lies_in_its_level(num_dims: int, levels: int, base: int, log2_size: int) -> None:
    config = HashGridConfig(n_levels=levels, log2_hashmap_size=log2_size, base_resolution=base, per_level_scale=1.7)
    made = HashGrid(config, num_dims, torch.Generator().manual_seed(0))
    ends = torch.tensor(list(itertools.product((0.0, 0.37, 1.0), repeat=num_dims)))
    cell = torch.minimum((ends.t()[:, None] * made.resolutions).int(), made.resolutions - 1)
    rows = made._rows(cell)
    first = torch.tensor([sum(level_rows(config, num_dims)[:level]) for level in range(levels + 1)])
    assert (rows >= first[:-1, None]).all()
    assert (rows < first[1:, None]).all()
    assert made.table.shape[1] == first[-1]


def test_interpolation_reproduces_a_linear_function() -> None:
    """Multilinear interpolation of f(x, y, z) = x + 2y - z, stored at the vertices of a dense level, is exact."""
    config = HashGridConfig(n_levels=1, n_features_per_level=1, log2_hashmap_size=10, base_resolution=5)
    made = grid(config, 3)
    z, y, x = torch.meshgrid(*[torch.arange(6, dtype=torch.float64) / 5] * 3, indexing="ij")
    with torch.no_grad():
        made.table.copy_((x + 2 * y - z).reshape(1, -1))
    points = torch.rand(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(made(points)[:, 0], points @ torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64))


def test_large_hashes_wrap_without_leaving_the_table() -> None:
    """At 2^22 rows and 4000 cells the products of the hash exceed 32 bits: the low bits, which count, must survive."""
    config = HashGridConfig(n_levels=1, n_features_per_level=1, log2_hashmap_size=22, base_resolution=1000)
    made = HashGrid(config, 3, torch.Generator().manual_seed(0))
    vertex = [998, 997, 996]
    row = made._rows(torch.tensor(vertex, dtype=torch.int32)[:, None, None])[0, 0, 0]
    assert int(row) == (vertex[0] ^ vertex[1] * PRIMES[1] ^ vertex[2] * PRIMES[2]) % 2**22


def test_equal_generators_give_equal_grids() -> None:
    assert torch.equal(grid(SMALL, 2).table, grid(SMALL, 2).table)


def test_other_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="2 or 3 dimensions, not 4"):
        HashGrid(SMALL, 4, torch.Generator())
