from __future__ import annotations

import pytest
import torch

from dpscale.config.schema import FieldConfig, HashGridConfig
from dpscale.field import native
from dpscale.field.adam import LazyAdam, lazy_update, optimizer_of, stochastically_rounded
from dpscale.field.hash_grid import HashGrid
from dpscale.field.hash_grid_fused import FusedHashGrid
from dpscale.field.table import AdamStep
from tests.unit.field.small_field import SMALL, small_field

needs_kernels = pytest.mark.skipif(native.library() is None, reason="no C++ compiler")
GRID = HashGridConfig(n_levels=4, n_features_per_level=2, log2_hashmap_size=10, base_resolution=3, per_level_scale=1.9)
BETAS, EPS = (0.9, 0.99), 1e-15


def batches(num_dims: int, steps: int = 4) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Points and gradients of the features; few points, so that most rows are used in some steps only."""
    generator = torch.Generator().manual_seed(1)
    return [(torch.rand(20, num_dims, generator=generator), torch.randn(20, 8, generator=generator)) for _ in range(steps)]


def trained(kind: type[HashGrid], num_dims: int, settings: HashGridConfig = GRID) -> tuple[HashGrid, LazyAdam]:
    grid = kind(settings, num_dims, torch.Generator().manual_seed(0))
    optimizer = LazyAdam(grid, 1e-2, BETAS, EPS)
    for points, gradient in batches(num_dims):
        optimizer.zero_grad()
        grid(points).backward(gradient)
        optimizer.step()
    return grid, optimizer


@needs_kernels
@pytest.mark.parametrize("num_dims", [2, 3])
def test_the_kernel_follows_the_rule_in_plain_torch(num_dims: int) -> None:
    """The reference grid gets its whole gradient and lazy_update. A gradient of nearly zero may differ in all its digits: hence atol, of lr 1e-2."""
    (fused, fast), (plain, slow) = trained(FusedHashGrid, num_dims), trained(HashGrid, num_dims)
    torch.testing.assert_close(fused.table, plain.table.t(), rtol=0, atol=1e-5)
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(fast.state[fused.table][name], slow.state[plain.table][name].t(), rtol=1e-5, atol=1e-6)
    assert fast.state[fused.table]["step"] == slow.state[plain.table]["step"] == 4


def test_where_every_element_is_used_it_is_torchs_adam() -> None:
    table, generator = torch.randn(3, 50), torch.Generator().manual_seed(2)
    expected = torch.nn.Parameter(table.clone())
    torchs = torch.optim.Adam([expected], lr=1e-2, betas=BETAS, eps=EPS)
    mean, square = torch.zeros_like(table), torch.zeros_like(table)
    for step in range(1, 6):
        expected.grad = torch.randn(3, 50, generator=generator)
        torchs.step()
        lazy_update(table, mean, square, expected.grad, AdamStep.at(step, 1e-2, BETAS, EPS))
    torch.testing.assert_close(table, expected.detach())
    torch.testing.assert_close(mean, torchs.state[expected]["exp_avg"])


@pytest.mark.parametrize("kind", [pytest.param(FusedHashGrid, marks=needs_kernels), HashGrid])
def test_what_a_step_does_not_use_stays(kind: type[HashGrid]) -> None:
    grid, optimizer = trained(kind, 3)
    state = optimizer.state[grid.table]
    before = [tensor.detach().clone() for tensor in (grid.table, state["exp_avg"], state["exp_avg_sq"])]
    points, gradient = batches(3)[0]
    optimizer.zero_grad()
    grid(points[:1]).backward(gradient[:1])
    optimizer.step()
    for old, new in zip(before, (grid.table, state["exp_avg"], state["exp_avg_sq"]), strict=True):
        changed = old != new
        assert 0 < changed.sum() <= 4 * 8 * 2, "eight corners on four levels, two features"
    optimizer.zero_grad()
    after = grid.table.detach().clone()
    optimizer.step()
    assert torch.equal(after, grid.table), "zero_grad forgets the gradient"


@needs_kernels
def test_gradients_of_two_backward_passes_add_up() -> None:
    tables = []
    for split in ((20,), (7, 13)):
        grid = FusedHashGrid(GRID, 3, torch.Generator().manual_seed(0))
        optimizer = LazyAdam(grid, 1e-2, BETAS, EPS)
        points, gradient = batches(3)[0]
        for some, slope in zip(points.split(split), gradient.split(split), strict=True):
            grid(some).backward(slope)
        optimizer.step()
        tables.append(grid.table.detach())
    assert torch.equal(*tables)


def test_the_networks_follow_torchs_adam() -> None:
    plain = SMALL.model_copy(update={"adam": "dense"})
    fields = []
    for config in (SMALL, plain):
        field = small_field()
        optimizer = optimizer_of(field, config)
        assert isinstance(optimizer, LazyAdam) == (config.adam == "lazy")
        field(torch.rand(30, 3, generator=torch.Generator().manual_seed(3))).sum().backward()
        optimizer.step()
        fields.append(dict(field.named_parameters()))
    networks = [name for name in fields[0] if "network" in name]
    assert networks
    assert all(torch.equal(fields[0][name], fields[1][name]) for name in networks)


@needs_kernels
def test_bfloat16_tables_round_as_their_twin_does() -> None:
    settings = GRID.model_copy(update={"table_dtype": "bfloat16"})
    grid, optimizer = trained(FusedHashGrid, 3, settings)
    table = FusedHashGrid(settings, 3, torch.Generator().manual_seed(0)).table.detach()
    mean, square = (torch.zeros_like(table, dtype=torch.float32) for _ in range(2))
    for step, (points, gradient) in enumerate(batches(3), 1):
        whole = FusedHashGrid(GRID, 3, torch.Generator().manual_seed(0))
        whole(points).backward(gradient)
        lazy_update(table, mean, square, whole.table.grad, AdamStep.at(step, 1e-2, BETAS, EPS))
    assert grid.table.dtype == torch.bfloat16
    assert optimizer.state[grid.table]["exp_avg_sq"].dtype == torch.float32
    # The last bit of a float32 decides in rare cases whether it is rounded up.
    assert (grid.table != table).float().mean() < 1e-3
    torch.testing.assert_close(grid.table.detach(), table, rtol=2**-7, atol=1e-5)


def test_stochastic_rounding_is_right_in_the_mean_and_repeats() -> None:
    values = torch.tensor([1.001, -0.3, 3e-5, 0.0]).repeat(64)
    rounds = torch.stack([stochastically_rounded(values, step).float() for step in range(200)])
    assert torch.equal(stochastically_rounded(values, 3), stochastically_rounded(values, 3))
    assert not torch.equal(rounds[3], rounds[4])
    spacing = values.abs() * 2**-7
    assert ((rounds - values).abs() <= spacing).all(), "to a neighbour"
    mean = rounds.view(200, 64, 4).mean((0, 1))
    # 12,800 draws between two neighbours: the mean's deviation is at most spacing / 2 / sqrt(12800), five of which are allowed.
    assert ((mean - values[:4]).abs() <= spacing[:4] * 5 / 2 / 12800**0.5).all()


@needs_kernels
def test_bfloat16_tables_still_learn_from_small_updates() -> None:
    """Steps of 1e-4 at a value of 1 are a fortieth of bfloat16's spacing: rounded to nearest, none would ever arrive."""
    grid = FusedHashGrid(GRID.model_copy(update={"table_dtype": "bfloat16"}), 2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        grid.table.fill_(1.0)
    optimizer = LazyAdam(grid, 1e-4, BETAS, EPS)
    points = torch.rand(2000, 2, generator=torch.Generator().manual_seed(1))
    for _ in range(100):
        optimizer.zero_grad()
        grid(points).sum().backward()
        optimizer.step()
    used = optimizer.state[grid.table]["exp_avg"] != 0
    assert float(grid.table.detach().float()[used].mean()) == pytest.approx(1 - 100 * 1e-4, abs=1e-3)


def test_the_default_is_lazy() -> None:
    assert FieldConfig().adam == "lazy"
