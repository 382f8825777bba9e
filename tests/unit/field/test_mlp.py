"""The C++ kernel against torch's layers, which are in the same module."""

from __future__ import annotations

import pytest
import torch

from dpscale.field import native
from dpscale.field.mlp import Mlp

needs_kernels = pytest.mark.skipif(native.library() is None, reason="no C++ compiler")
SIZES = [(35, 64, 8, 2), (5, 8, 1, 3), (32, 64, 2, 3), (3, 100, 2, 17)]


def network(sizes: tuple[int, int, int, int], dtype: torch.dtype = torch.float32) -> Mlp:
    made = Mlp(*sizes, torch.Generator().manual_seed(0)).to(dtype)
    for number, layer in enumerate(list(made)[::2]):
        torch.nn.init.normal_(layer.bias, std=0.1, generator=torch.Generator().manual_seed(number))
    return made


def results(net: Mlp, samples: int, fused: bool) -> list[torch.Tensor]:
    """Values, and gradients of a weighted sum of them: of the first input and of every parameter."""
    generator = torch.Generator().manual_seed(1)
    dtype, width = net[0].weight.dtype, net[0].in_features
    first = torch.randn(samples, width - 2, dtype=dtype, generator=generator).requires_grad_()
    second = torch.randn(samples, 2, dtype=dtype, generator=generator)
    net.fused = fused
    values = net(first, second)
    weights = torch.randn(values.shape, dtype=dtype, generator=generator)
    return [values.detach(), *torch.autograd.grad((values * weights).sum(), [first, *net.parameters()])]


def test_mlp_has_the_layers_asked_for() -> None:
    linear = [layer for layer in network((5, 8, 2, 2)) if isinstance(layer, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(5, 8), (8, 8), (8, 2)]
    assert isinstance(network((5, 8, 2, 2))[-1], torch.nn.Linear)


@needs_kernels
@pytest.mark.parametrize("samples", [0, 1, 64, 1100])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_kernel_equals_torch(sizes: tuple[int, int, int, int], samples: int) -> None:
    """In float64; sums over samples in groups instead of one after the other differ in the last digits."""
    net = network(sizes, torch.float64)
    for one, other in zip(results(net, samples, True), results(net, samples, False), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@needs_kernels
def test_float32_differs_by_rounding_alone() -> None:
    net = network(SIZES[0])
    for one, other in zip(results(net, 1000, True), results(net, 1000, False), strict=True):
        assert float((one - other).abs().max() / other.abs().max()) < 1e-5


@needs_kernels
def test_gradients_equal_finite_differences() -> None:
    net = network((4, 6, 2, 2), torch.float64)
    at = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    names, values = zip(*net.named_parameters(), strict=True)

    def run(at: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(net, dict(zip(names, parameters, strict=True)), (at,))

    assert torch.autograd.gradcheck(run, (at, *(value.detach().clone().requires_grad_() for value in values)), eps=1e-6, atol=1e-6)


@needs_kernels
def test_the_number_of_threads_changes_no_bit() -> None:
    net, before = network(SIZES[0]), torch.get_num_threads()
    runs = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        runs.append(results(net, 3000, True))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) and torch.equal(b, c) for a, b, c in zip(*runs, strict=True))


@needs_kernels
def test_a_retained_graph_gives_the_same_gradients_after_another_step() -> None:
    """Whose activations lie where those of the first one lay."""
    net = network(SIZES[0])
    first, second = (torch.randn(700, 35, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4))
    total = net(first).square().sum()
    once = torch.autograd.grad(total, net.parameters(), retain_graph=True)
    torch.autograd.grad(net(second).square().sum(), net.parameters())
    again = torch.autograd.grad(total, net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


@needs_kernels
def test_two_graphs_at_once_do_not_share_memory() -> None:
    net = network(SIZES[0])
    inputs = [torch.randn(700, 35, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4)]
    alone = [torch.autograd.grad(net(points).square().sum(), net.parameters()) for points in inputs]
    totals = [net(points).square().sum() for points in inputs]
    together = [torch.autograd.grad(total, net.parameters()) for total in totals]
    assert all(torch.equal(a, b) for one, other in zip(alone, together, strict=True) for a, b in zip(one, other, strict=True))


def test_an_input_beyond_the_first_that_wants_a_gradient_gets_it() -> None:
    net = network(SIZES[1])
    first, second = torch.randn(7, 3), torch.randn(7, 2, requires_grad=True)
    net(first, second).sum().backward()
    assert second.grad is not None
    assert second.grad.abs().sum() > 0


@needs_kernels
def test_what_is_not_a_number_stays_one() -> None:
    net, inputs = network(SIZES[1]), torch.randn(70, 5)
    inputs[66, 1] = float("nan")
    values = net(inputs)
    assert values[66].isnan().all()
    assert not values[:66].isnan().any()
