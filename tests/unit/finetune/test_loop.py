from __future__ import annotations

import pytest
import torch
from torch import nn

from dpscale.finetune.loop import TorchEngine, every, lr_factor, train


def target(step: int) -> torch.Tensor:
    return torch.randn(3, generator=torch.Generator().manual_seed(step))


class Line:
    """Two parameters, one of which may be left without gradient."""

    def __init__(self) -> None:
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
        self.unused = nn.Parameter(torch.tensor([5.0]))
        parameters = {"weight": self.weight, "unused": self.unused}
        self.engine = TorchEngine(parameters, [{"params": list(parameters.values()), "weight_decay": 0.1}], lr=0.05)

    def step(self, number: int) -> torch.Tensor:
        return (self.weight - target(number)).square().mean()


def adamw_twin(num_steps: int) -> torch.Tensor:
    """AdamW written out (Loshchilov & Hutter, Algorithm 2)."""
    theta, m, v = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64), torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for t in range(1, num_steps + 1):
        gradient = 2 * (theta - target(t - 1).double()) / 3
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        theta = theta - 0.05 * 0.1 * theta
        theta = theta - 0.05 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    return theta


def test_train_is_adamw_step_by_step():
    line, losses, saved = Line(), [], []
    train(line.engine, line.step, 5, log=lambda done, loss: losses.append((done, loss)), save=every(2, 5, saved.append))
    torch.testing.assert_close(line.weight.detach().double(), adamw_twin(5), rtol=1e-6, atol=1e-6)
    assert [done for done, _ in losses] == [1, 2, 3, 4, 5]
    assert losses[0][1] == pytest.approx(float(Line().step(0).detach()))
    assert saved == [2, 4, 5]


def test_resumed_equals_uninterrupted_to_the_bit():
    whole, half, rest = Line(), Line(), Line()
    train(whole.engine, whole.step, 7)
    train(half.engine, half.step, 3)
    rest.engine.load_state(half.engine.state())
    train(rest.engine, rest.step, 7, start_step=3)
    expected, found = whole.engine.state(), rest.engine.state()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert int(found["step"]) == 7


def test_state_before_the_first_step_changes_nothing():
    fresh, restored = Line(), Line()
    restored.engine.load_state(fresh.engine.state())
    for line in (fresh, restored):
        train(line.engine, line.step, 2)
    assert torch.equal(fresh.weight, restored.weight)


def test_lr_schedule_sets_every_step():
    line = Line()
    train(line.engine, line.step, 2, lr_schedule=lambda step: [0.5, 0.0][step])
    once = Line()
    train(once.engine, once.step, 1, lr_schedule=lambda step: 0.5)
    assert torch.equal(line.weight, once.weight)


def test_cosine_falls_from_one_towards_zero():
    assert [lr_factor("constant", step, 4) for step in range(4)] == [1.0] * 4
    assert [lr_factor("cosine", step, 4) for step in range(4)] == pytest.approx([1.0, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_accumulated_losses_are_their_mean():
    whole, parts, losses = Line(), Line(), []
    train(whole.engine, lambda step: (whole.step(2 * step) + whole.step(2 * step + 1)) / 2, 4)
    train(parts.engine, parts.step, 4, accumulate=2, log=lambda done, loss: losses.append(loss))
    torch.testing.assert_close(parts.weight, whole.weight, rtol=1e-6, atol=1e-6)
    assert losses[0] == pytest.approx(float((Line().step(0) + Line().step(1)).detach()) / 2)


def test_loss_that_is_not_finite_stops_before_the_weights_change():
    line = Line()
    with pytest.raises(FloatingPointError, match="step 0: lower the learning rate"):
        train(line.engine, lambda step: line.step(step) * float("nan"), 3)
    assert torch.equal(line.weight.detach(), torch.tensor([1.0, -2.0, 3.0]))
