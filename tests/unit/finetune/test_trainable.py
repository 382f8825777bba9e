from __future__ import annotations

import pytest
import torch
from diffusers import MotionAdapter

from dpscale.config.schema import DiffusionConfig
from dpscale.diffusion.denoiser import PoseDenoiser
from dpscale.diffusion.weights import load_model
from dpscale.finetune.loop import TorchEngine
from dpscale.finetune.trainable import TrainablePart, install, trainable_denoiser, unfrozen
from tests.small_performer import small_model
from tests.unit.diffusion.models import CHANNELS
from tests.unit.diffusion.published import GROUPS, LATENT, WIDTHS, write_sd15

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


@pytest.fixture(scope="module")
def motion_denoiser(tmp_path_factory) -> PoseDenoiser:
    folder = write_sd15(tmp_path_factory.mktemp("sd15"))
    return load_model(DiffusionConfig(preset="sd15", weights=str(folder), latent_size=LATENT)).denoiser


def test_of_a_motion_unet_exactly_the_motion_adapters_parameters_train_with_pose_encoder_and_widened_inputs(motion_denoiser):
    part = trainable_denoiser(motion_denoiser, "temporal")
    adapter = MotionAdapter(block_out_channels=WIDTHS, motion_norm_num_groups=GROUPS)
    expected = {f"unet.{name}" for name, _ in adapter.named_parameters()} | {"unet.conv_in.weight"}
    for kind in ("keypoints", "iuv"):
        expected |= {f"pose_encoder.spatial.{kind}.{name}" for name in POSE_SPATIAL}
        expected |= {f"pose_encoder.temporal.{kind}.{name}" for name in POSE_TEMPORAL}
    assert set(part.parameters) == expected
    assert part.frozen_inputs == {"unet.conv_in.weight": 4}
    modules = {name.split(".motion_modules.")[0] + "." + name.split(".motion_modules.")[1][0] for name in expected if ".motion_modules." in name}
    assert len(modules) == 4 * 2 + 1 + 4 * 3  # two a block on the way down, one in the middle, three a block on the way up


def test_an_update_of_a_motion_unet_moves_these_and_no_others(motion_denoiser):
    part = trainable_denoiser(motion_denoiser, "temporal")
    before = {name: p.detach().clone() for name, p in motion_denoiser.named_parameters()}
    with unfrozen(part):
        engine = TorchEngine(part.parameters, part.groups(weight_decay=0.5), lr=0.1)
        engine.backward(sum((p + 1).square().sum() for p in motion_denoiser.parameters()))
        engine.step()
        moved = {name for name, p in motion_denoiser.named_parameters() if not torch.equal(p, before[name])}
        assert torch.equal(motion_denoiser.unet.conv_in.weight[:, :4], before["unet.conv_in.weight"][:, :4])
    assert moved == set(part.parameters)
