import pytest
import torch
from diffusers import UNet3DConditionModel

from dpscale.diffusion.conditions import POSE_CHANNELS
from dpscale.diffusion.denoiser import PoseDenoiser, widen_input, without_temporal_layers
from dpscale.diffusion.pose_encoder import PoseEncoder
from tests.unit.diffusion.models import LATENT, random_conditions, small_model


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
        PoseDenoiser(_published_unet(), PoseEncoder({"iuv": 26}, 8, 16, 8))


def test_output_depends_on_pose_identity_and_reference():
    model, conditions = small_model().denoiser, random_conditions(1, 2)
    torch.nn.init.normal_(model.unet.conv_out.weight)
    noisy, t = torch.randn(1, 16, 2, LATENT, LATENT), torch.tensor([300])
    with torch.no_grad():
        outputs = [model(noisy, t, c) for c in (conditions, random_conditions(1, 2, seed=5), conditions.without_identity())]
    assert outputs[0].shape == noisy.shape
    assert not torch.allclose(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])


def test_silent_temporal_layers_may_be_skipped():
    model, conditions = small_model().denoiser, random_conditions(2, 1)
    noisy, t = torch.randn(2, 16, 1, LATENT, LATENT), torch.tensor([300, 20])
    with torch.no_grad():
        whole = model(noisy, t, conditions)
        with without_temporal_layers(model.unet):
            short = model(noisy, t, conditions)
        again = model(noisy, t, conditions)
    assert torch.allclose(whole, short, atol=1e-5)
    assert torch.equal(whole, again)
