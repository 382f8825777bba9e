from __future__ import annotations

import pytest
import torch
from torch import nn

from dpscale.finetune.average import AveragedEngine, averaged_parameters, start_averages
from dpscale.finetune.loop import TorchEngine, train

START = [1.0, -2.0, 3.0]


def averaged(decay: float, state=None) -> tuple[AveragedEngine, nn.Parameter]:
    parameters = {"weight": nn.Parameter(torch.tensor(START))}
    averages = start_averages(parameters, state)
    inner = TorchEngine(parameters, [{"params": list(parameters.values()), "weight_decay": 0.0}], 0.1, state)
    return AveragedEngine(inner, parameters, averages, decay, state), parameters["weight"]


@pytest.mark.parametrize("decay", [0.05, 0.3, 0.999])
def test_average_is_its_formula(decay: float):
    engine, weight = averaged(decay)
    expected = torch.tensor(START, dtype=torch.float64)

    def follow(done: int) -> None:
        nonlocal expected
        d = min(decay, (1 + done) / (10 + done))
        expected = d * expected + (1 - d) * weight.detach().double()

    train(engine, lambda step: (weight - step).square().sum(), 20, save=follow)
    found = averaged_parameters(engine.state())["parameter.weight"]
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(found, weight.detach(), atol=1e-4)


def test_resumed_average_equals_uninterrupted_to_the_bit():
    whole, weight = averaged(0.9)
    train(whole, lambda step: (weight - step).square().sum(), 7)
    half, weight_of_half = averaged(0.9)
    train(half, lambda step: (weight_of_half - step).square().sum(), 3)
    rest, weight_of_rest = averaged(0.9, half.state())
    train(rest, lambda step: (weight_of_rest - step).square().sum(), 7, start_step=3)
    expected, found = whole.state(), rest.state()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_state_without_averages_keeps_its_parameters():
    state = {"parameter.a": torch.ones(2), "exp_avg.a": torch.zeros(2), "step": torch.tensor(3)}
    found = averaged_parameters(state)
    assert list(found) == ["parameter.a"]
    assert torch.equal(found["parameter.a"], torch.ones(2))


def test_values_that_zero_3_has_taken_apart_come_from_the_engines_state():
    class Apart(TorchEngine):
        """Like ZeRO-3: between steps a parameter's own storage is empty."""

        def step(self) -> None:
            super().step()
            self.whole = self.state()
            for parameter in self.parameters.values():
                parameter.data = torch.empty(0)

        def state(self):
            return self.whole if hasattr(self, "whole") else super().state()

    engines = []
    for kind in (TorchEngine, Apart):
        parameters = {"weight": nn.Parameter(torch.tensor(START))}
        averages = start_averages(parameters, None)
        inner = kind(parameters, [{"params": list(parameters.values()), "weight_decay": 0.0}], 0.1)
        engine = AveragedEngine(inner, parameters, averages, 0.9, None)
        engine.backward(parameters["weight"].square().sum())
        engine.step()
        engines.append(engine)
    plain, apart = (engine.state() for engine in engines)
    assert torch.equal(plain["average.weight"], apart["average.weight"])
    assert not torch.equal(plain["average.weight"], torch.tensor(START))
