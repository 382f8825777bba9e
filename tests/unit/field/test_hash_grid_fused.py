"""The fused grid's C++ kernels against the plain torch grid, which has a slow twin of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch

from dpscale.config.schema import HashGridConfig
from dpscale.field import hash_grid_cpu, native
from dpscale.field.hash_grid import HashGrid
from dpscale.field.hash_grid_fused import FusedHashGrid, as_table, lattice_points
from dpscale.field.table import AdamStep

pytestmark = pytest.mark.skipif(native.library() is None, reason="no C++ compiler")


def config(features: int = 2, **changes: object) -> HashGridConfig:
    """Four levels, the upper ones hashed."""
    sizes = {"n_levels": 4, "n_features_per_level": features, "log2_hashmap_size": 8, "base_resolution": 3, "per_level_scale": 1.9}
    return HashGridConfig(**(sizes | changes))


def pair(settings: HashGridConfig, num_dims: int, dtype: torch.dtype = torch.float64) -> tuple[FusedHashGrid, HashGrid]:
    """Both kinds with one table whose values are of order 1: at their initial +-1e-4 errors would hide."""
    fused, plain = (kind(settings, num_dims, torch.Generator().manual_seed(0)).to(dtype) for kind in (FusedHashGrid, HashGrid))
    with torch.no_grad():
        plain.table.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
        fused.table.copy_(plain.table.t())
    return fused, plain


def points(num_dims: int, count: int = 150, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Inside, outside and on the corners of [0, 1]; more than two blocks, the last one not full."""
    inside = torch.rand(count, num_dims, dtype=dtype, generator=torch.Generator().manual_seed(2)) * 1.4 - 0.2
    corners = torch.tensor(list(itertools.product((0.0, 1.0), repeat=num_dims)), dtype=dtype)
    return torch.cat([inside, corners])


def gradients(grid: HashGrid, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values, and gradients of a weighted sum of them with respect to points and table."""
    at = at.clone().requires_grad_()
    values = grid(at)
    weights = torch.rand(values.shape, dtype=values.dtype, generator=torch.Generator().manual_seed(3))
    for_points, for_table = torch.autograd.grad((values * weights).sum(), (at, grid.table))
    return values.detach(), for_points, for_table


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_same_generator_gives_the_same_table() -> None:
    fused, plain = (kind(config(), 3, torch.Generator().manual_seed(5)) for kind in (FusedHashGrid, HashGrid))
    assert torch.equal(fused.table, plain.table.t())
    assert 0 < fused.num_dense < 4, "the tests must cover dense and hashed levels"


@pytest.mark.parametrize(("num_dims", "features"), [(2, 1), (2, 2), (3, 2), (3, 3), (3, 8)])
def test_values_and_gradients_equal_the_reference(num_dims: int, features: int) -> None:
    fused, plain = pair(config(features), num_dims)
    at = points(num_dims)
    for one, other in zip(gradients(fused, at), gradients(plain, at), strict=True):
        torch.testing.assert_close(one, as_table(other, one))


@pytest.mark.parametrize("num_dims", [2, 3])
def test_float32_differs_by_rounding_alone(num_dims: int) -> None:
    """Values are sums of eight terms of order 1; a row's gradient is a sum of some hundred, in another order than torch's."""
    settings = config(log2_hashmap_size=12)
    fused, plain = pair(settings, num_dims, torch.float32)
    at = points(num_dims, 1500, torch.float32)
    values, for_points, for_table = gradients(fused, at)
    expected = gradients(plain, at)
    torch.testing.assert_close(values, expected[0], rtol=0, atol=2e-6)
    torch.testing.assert_close(for_points, expected[1], rtol=1e-5, atol=2e-4)  # of order resolution times features: 100
    torch.testing.assert_close(for_table, expected[2].t(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_dims", [2, 3])
def test_gradients_equal_finite_differences(num_dims: int) -> None:
    fused, _ = pair(HashGridConfig(n_levels=2, n_features_per_level=2, log2_hashmap_size=8, base_resolution=2, per_level_scale=3.0), num_dims)
    # Away from cell borders, where the interpolation has a kink.
    at = (torch.rand(6, num_dims, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) * 0.9 + 0.03).requires_grad_()

    def features(at: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(fused, {"table": table}, (at,))

    assert torch.autograd.gradcheck(features, (at, fused.table.detach().clone().requires_grad_()), eps=1e-7, atol=1e-5)


def _everything(settings: HashGridConfig, num_dims: int, threads: int) -> list[torch.Tensor]:
    torch.set_num_threads(threads)
    fused, _ = pair(settings, num_dims, torch.float32)
    at = points(num_dims, 5000, torch.float32)
    results = list(gradients(fused, at))
    gradient = torch.rand(len(at), fused.num_features, generator=torch.Generator().manual_seed(6))
    mean, square = torch.zeros_like(fused.table), torch.zeros_like(fused.table)
    hash_grid_cpu.update(at, gradient, fused.table.detach(), mean, square, fused.shape, AdamStep.at(1, 1e-2, (0.9, 0.99), 1e-15))
    lattice = fused.lattice(torch.linspace(0, 1, 40), torch.linspace(0, 1, 70), 0.3) if num_dims == 3 else at
    return [*results, fused.table.detach(), mean, square, lattice]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("num_dims", [2, 3])
def test_the_number_of_threads_changes_no_bit(num_dims: int) -> None:
    one, two, again = (_everything(config(), num_dims, threads) for threads in (1, 2, 2))
    assert all(torch.equal(a, b) and torch.equal(b, c) for a, b, c in zip(one, two, again, strict=True))


def test_no_points() -> None:
    fused, _ = pair(config(), 3)
    values, for_points, for_table = gradients(fused, torch.zeros(0, 3, dtype=torch.float64))
    assert values.shape == (0, 8)
    assert for_points.shape == (0, 3)
    assert not for_table.any()


def test_a_point_that_is_not_a_number_stays_one_and_harms_nobody() -> None:
    fused, _ = pair(config(), 3)
    at = points(3)
    at[1, 2] = float("nan")
    values = fused(at)
    assert values[1].isnan().all()
    assert not values[torch.arange(len(at)) != 1].isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("features", [1, 2, 4])
def test_the_lattice_is_the_grid_at_every_pixel(features: int, dtype: torch.dtype) -> None:
    """A blend of blends instead of a sum over eight corners: equal within float32's rounding of values of order 1."""
    fused, _ = pair(config(features, table_dtype=str(dtype).removeprefix("torch.")), 3, dtype)
    for x, y in ((torch.linspace(-0.1, 1.1, 37), torch.linspace(0, 1, 50)), (torch.tensor([0.4]), torch.linspace(0.2, 0.21, 3))):
        for z in (0.0, 0.31, 1.0, 1.2):
            torch.testing.assert_close(fused.lattice(x, y, z), fused(lattice_points(x, y, z)).detach(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("features", [1, 2, 3])
def test_a_bfloat16_table_is_read_exactly(features: int) -> None:
    fused, plain = pair(config(features, table_dtype="bfloat16"), 3, torch.bfloat16)
    at = points(3, dtype=torch.float32)
    torch.testing.assert_close(fused(at), plain.float()(at), rtol=0, atol=2e-6)


def test_while_deferred_the_gradient_of_the_table_is_noted_and_not_made() -> None:
    fused, _ = pair(config(), 3)
    fused.deferred = []
    at = points(3).requires_grad_()
    values = fused(at)
    values.backward(torch.ones_like(values))
    ((noted, slope),) = fused.deferred
    assert fused.table.grad is None
    assert torch.equal(noted, at)
    fused.deferred = None
    expected = gradients(fused, at.detach())[2]
    weights = torch.rand(values.shape, dtype=values.dtype, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(hash_grid_cpu.table_gradient(noted, slope * weights, fused.shape), expected)
