from __future__ import annotations

import pytest
import torch

from dpscale.finetune.loop import TorchEngine
from dpscale.finetune.trainable import TrainablePart, install, trainable_denoiser, unfrozen
from tests.small_performer import small_model
from tests.unit.diffusion.models import CHANNELS

TEMPORAL_CONVOLUTION = [f"conv{i}.{layer}.{kind}" for i in (1, 2, 3, 4) for layer in (0, 2 if i == 1 else 3) for kind in ("weight", "bias")]
ATTENTION = ["to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias"]
TEMPORAL_TRANSFORMER = [
    *("norm.weight", "norm.bias", "proj_in.weight", "proj_in.bias", "proj_out.weight", "proj_out.bias"),
    *(f"transformer_blocks.0.attn{i}.{name}" for i in (1, 2) for name in ATTENTION),
    *(f"transformer_blocks.0.norm{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")),
    *(f"transformer_blocks.0.ff.net.{layer}.{kind}" for layer in ("0.proj", "2") for kind in ("weight", "bias")),
]
POSE_SPATIAL = [f"{layer}.{kind}" for layer in ("conv_in", "conv_mid", "conv_out") for kind in ("weight", "bias")]
POSE_TEMPORAL = [
    *(
        "layers.0.self_attn.in_proj_weight",
        "layers.0.self_attn.in_proj_bias",
        "layers.0.self_attn.out_proj.weight",
        "layers.0.self_attn.out_proj.bias",
    ),
    *(f"layers.0.{layer}.{kind}" for layer in ("linear1", "linear2", "norm1", "norm2") for kind in ("weight", "bias")),
]


def expected_temporal() -> set[str]:
    """Every trained tensor of the small model, by name: nothing else may move."""
    convolutions = ["down_blocks.0.temp_convs.0", "down_blocks.1.temp_convs.0", "mid_block.temp_convs.0", "mid_block.temp_convs.1"]
    convolutions += [f"up_blocks.{block}.temp_convs.{layer}" for block in (0, 1) for layer in (0, 1)]
    transformers = ["transformer_in", "down_blocks.0.temp_attentions.0", "mid_block.temp_attentions.0"]
    transformers += [f"up_blocks.1.temp_attentions.{layer}" for layer in (0, 1)]
    names = {f"unet.{place}.{name}" for place in convolutions for name in TEMPORAL_CONVOLUTION}
    names |= {f"unet.{place}.{name}" for place in transformers for name in TEMPORAL_TRANSFORMER}
    for kind in ("keypoints", "iuv"):
        names |= {f"pose_encoder.spatial.{kind}.{name}" for name in POSE_SPATIAL} | {f"pose_encoder.temporal.{kind}.{name}" for name in POSE_TEMPORAL}
    return names | {"unet.conv_in.weight"}


def test_temporal_trains_exactly_these_tensors():
    part = trainable_denoiser(small_model().denoiser, "temporal")
    assert set(part.parameters) == expected_temporal()
    assert part.frozen_inputs == {"unet.conv_in.weight": CHANNELS}


def test_all_trains_the_whole_denoiser():
    denoiser = small_model().denoiser
    part = trainable_denoiser(denoiser, "all")
    assert set(part.parameters) == {name for name, _ in denoiser.named_parameters()}
    assert part.frozen_inputs == {}


def test_only_widened_inputs_move_even_under_weight_decay():
    denoiser = small_model().denoiser
    part = trainable_denoiser(denoiser, "temporal")
    before = {name: p.detach().clone() for name, p in denoiser.named_parameters()}
    with unfrozen(part):
        engine = TorchEngine(part.parameters, part.groups(weight_decay=0.5), lr=0.1)
        for _ in range(3):
            engine.backward(sum((p + 1).square().sum() for p in denoiser.parameters()))
            engine.step()
        moved = {name for name, p in denoiser.named_parameters() if not torch.equal(p, before[name])}
        weight = denoiser.unet.conv_in.weight.detach()
        old = before["unet.conv_in.weight"]
        assert torch.equal(weight[:, :CHANNELS], old[:, :CHANNELS])
        assert bool((weight[:, CHANNELS:] != old[:, CHANNELS:]).all())
    assert moved == set(part.parameters)


def _spoil_and_stop(part: TrainablePart) -> None:
    assert {name for name, p in part.module.named_parameters() if p.requires_grad} == set(part.parameters)
    install(part, {f"parameter.{name}": torch.ones_like(p) for name, p in part.parameters.items()})
    sum(p.sum() for p in part.parameters.values()).backward()
    raise RuntimeError("stop")


def test_leaves_the_base_as_it_was_also_after_an_error():
    denoiser = small_model().denoiser
    before = {name: p.detach().clone() for name, p in denoiser.named_parameters()}
    part = trainable_denoiser(denoiser, "temporal")
    with pytest.raises(RuntimeError, match="stop"), unfrozen(part):
        _spoil_and_stop(part)
    assert all(torch.equal(p, before[name]) and p.grad is None and p.requires_grad for name, p in denoiser.named_parameters())
    assert not denoiser.unet.conv_in.weight._backward_hooks
