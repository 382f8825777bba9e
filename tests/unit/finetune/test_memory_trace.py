"""Bytes of a step small enough to be counted by hand, on real and on storageless tensors."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dpscale.finetune.memory_trace import step_memory
from dpscale.finetune.trainable import TrainablePart


@pytest.mark.parametrize("mode", [nullcontext, FakeTensorMode])
def test_a_layer_and_a_tanh(mode):
    with mode():
        layer, x = nn.Linear(4, 4, bias=False), torch.zeros(1000, 4)
        found = step_memory(TrainablePart(layer, dict(layer.named_parameters())), lambda: layer(x).tanh().sum())
    array = 1000 * 4 * 4
    assert found.activations == array + 4  # tanh keeps its result; the other is the loss
    # tanh's backward: its result, its input's gradient, the loss and the loss's gradient. The layer's own comes after tanh's result is gone.
    assert found.peak == found.peak_without_gradients == 2 * array + 4 + 4


def test_what_was_there_before_and_views_of_it_take_nothing():
    layer = nn.Linear(4, 4)
    part = TrainablePart(layer, {"bias": layer.bias})
    assert step_memory(part, lambda: layer.bias.view(2, 2)[0].sum()).activations == 4
