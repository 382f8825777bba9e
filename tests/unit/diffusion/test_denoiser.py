from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, UNet3DConditionModel
from torch import nn

from dpscale.config.schema import DiffusionConfig
from dpscale.diffusion.conditions import POSE_CHANNELS
from dpscale.diffusion.denoiser import PoseDenoiser, widen_input, without_temporal_layers
from dpscale.diffusion.pose_encoder import PoseEncoder
from dpscale.diffusion.untrained import UntrainedModel, untrained_model
from dpscale.diffusion.weights import tiny_model
from dpscale.finetune.trainable import trainable_denoiser
from tests.unit.diffusion.models import CHANNELS, LATENT, random_conditions, small_model

DOCUMENT = (Path(__file__).parents[3] / "docs" / "models.md").read_text()


def _published_unet():
    torch.manual_seed(0)
    return UNet3DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"), block_out_channels=(16, 32), layers_per_block=1,
        norm_num_groups=8, cross_attention_dim=24, attention_head_dim=8,
    ).eval()  # fmt: skip


def test_a_widened_unet_gives_the_same_output_to_the_bit():
    unet, g = _published_unet(), torch.Generator().manual_seed(1)
    latents, pose, context = torch.randn(2, 4, 3, 8, 8, generator=g), torch.randn(2, 8, 3, 8, 8, generator=g), torch.randn(2, 1, 24, generator=g)
    with torch.no_grad():
        before = unet(latents, 500, context).sample
        after = widen_input(unet, 8)(torch.cat([latents, pose], 1), 500, context).sample
    assert torch.equal(before, after)
    assert unet.config.in_channels == 12


def test_pose_features_have_the_latents_size_and_every_kind_counts():
    encoder = PoseEncoder(dict(POSE_CHANNELS), 8, 16, latent_size=4)
    maps = {kind: torch.rand(2, 3, c, 32, 32) for kind, c in POSE_CHANNELS.items()}
    features = encoder(maps)
    assert features.shape == (2, 8, 3, 4, 4)
    for kind in maps:
        assert not torch.allclose(features, encoder(maps | {kind: torch.zeros_like(maps[kind])}))
    with pytest.raises(KeyError, match="iuv"):
        encoder({"keypoints": maps["keypoints"]})


def test_a_unet_of_the_wrong_width_is_refused():
    with pytest.raises(ValueError, match=r"4 input channels.*12"):
        PoseDenoiser(_published_unet(), PoseEncoder({"iuv": 26}, 8, 16, 8), DDIMScheduler())


def test_output_depends_on_pose_identity_and_reference():
    model, conditions = small_model().denoiser, random_conditions(1, 2)
    noisy, t = torch.randn(1, CHANNELS, 2, LATENT, LATENT), torch.tensor([300])
    with torch.no_grad():
        outputs = [model(noisy, t, c) for c in (conditions, random_conditions(1, 2, seed=5), conditions.without_identity())]
    assert outputs[0].shape == noisy.shape
    assert not torch.allclose(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])


def test_where_the_latent_is_pure_noise_only_references_are_heard():
    model, conditions = small_model().denoiser, random_conditions(1, 2)
    noisy = torch.randn(2, 1, CHANNELS, 2, LATENT, LATENT)
    with torch.no_grad():
        blind = [model(z, torch.tensor([999]), conditions) for z in noisy]
        hearing = [model(z, torch.tensor([300]), conditions) for z in noisy]
    torch.testing.assert_close(blind[0], blind[1], atol=1e-5, rtol=0)  # zero terminal signal-to-noise ratio
    assert not torch.allclose(hearing[0], hearing[1], atol=1e-3)


def test_an_untrained_tiny_shows_the_warped_references():
    model, conditions = tiny_model(0, 32, (16, 16), pose_channels=8, embedding=16).denoiser, random_conditions(1, 2)
    with torch.no_grad():
        made = model(torch.randn(1, CHANNELS, 2, LATENT, LATENT), torch.tensor([500]), conditions)
    assert torch.equal(made, conditions.reference_latents[:, :CHANNELS])
    with pytest.raises(ValueError, match="reference latents"):
        model(made, torch.tensor([500]), replace(conditions, reference_latents=None))


def test_silent_temporal_layers_may_be_skipped():
    model, conditions = small_model().denoiser, random_conditions(2, 1)
    noisy, t = torch.randn(2, CHANNELS, 1, LATENT, LATENT), torch.tensor([300, 20])
    with torch.no_grad():
        whole = model(noisy, t, conditions)
        with without_temporal_layers(model.unet):
            short = model(noisy, t, conditions)
        again = model(noisy, t, conditions)
    assert torch.allclose(whole, short, atol=1e-5)
    assert torch.equal(whole, again)


def row(name: str, parameters: Iterable[nn.Parameter]) -> str:
    return f"| {name} | {sum(p.numel() for p in parameters):,} |"


def published(preset: str) -> UntrainedModel:
    with torch.device("meta"):
        return untrained_model(DiffusionConfig(preset=preset))


@pytest.mark.parametrize("preset", ["sd21", "sd15"])
def test_the_document_counts_the_denoisers(preset):
    denoiser = published(preset).denoiser
    part = trainable_denoiser(denoiser, "temporal")
    assert row(f"`{preset}`: denoiser with pose encoder", denoiser.parameters()) in DOCUMENT
    assert row(f"`{preset}`: of them trained, `temporal`", part.parameters.values()) in DOCUMENT
    num_trained = sum(p.numel() for p in part.parameters.values())
    # Four bytes a number: weights; gradient and AdamW's two moments of what trains.
    assert f"| `{preset}` | {4 * sum(p.numel() for p in denoiser.parameters()) / 2**30:.1f} | {12 * num_trained / 2**30:.1f} |" in DOCUMENT


def test_the_document_counts_the_encoders():
    models = {"AutoencoderKL of SD 1.5 and 2.1": published("sd21").autoencoder,
              "OpenCLIP ViT-H/14, vision with projection": published("sd21").image_encoder,
              "CLIP ViT-L/14, vision with projection": published("sd15").image_encoder}  # fmt: skip
    assert all(row(name, model.parameters()) in DOCUMENT for name, model in models.items())
