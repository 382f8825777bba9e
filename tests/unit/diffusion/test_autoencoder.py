import numpy as np
import torch
from diffusers import AutoencoderKL

from dpscale.diffusion.autoencoder import KLAutoencoder, PatchAutoencoder


def _pictures(count=40, size=32):
    g = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 6, 6, generator=g)
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1) * 2 - 1


def test_an_untrained_decoder_is_the_best_linear_one():
    frames, model = _pictures(), PatchAutoencoder(latent_channels=6)
    model.fit_components(frames)
    made = model.decode(model.encode(frames)).detach().numpy()
    patches = frames.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(-1, 192).double().numpy()
    mean = patches.mean(0)
    rank6 = np.linalg.svd(patches - mean, full_matrices=False)[2][:6]
    best = ((patches - mean) @ rank6.T @ rank6 + mean).reshape(40, 4, 4, 3, 8, 8).transpose(0, 3, 1, 4, 2, 5).reshape(made.shape)
    np.testing.assert_allclose(made, best, atol=2e-4)


def test_latents_fall_in_variance_and_have_a_common_scale():
    frames, model = _pictures(), PatchAutoencoder(latent_channels=6)
    model.fit_components(frames)
    std = model.encode(frames).std((0, 2, 3))
    assert (std.diff() < 0.02).all()
    assert abs(float(std.square().mean()) - 1) < 0.1


def test_the_decoder_trains_and_the_encoder_does_not():
    frames, model = _pictures(8), PatchAutoencoder(latent_channels=4)
    model.fit_components(frames)
    latents = model.encode(frames)
    assert not {"mean", "components", "scale"} & set(model.decoder_parameters())
    optimiser = torch.optim.Adam(model.decoder_parameters().values(), 1e-3)
    first = last = None
    for _ in range(30):
        last = (model.decode(latents) - frames).square().mean()
        first = last.item() if first is None else first
        optimiser.zero_grad()
        last.backward()
        optimiser.step()
    assert last.item() < 0.9 * first
    assert torch.equal(model.encode(frames), latents)


def test_kl_uses_the_posterior_mean_and_the_scaling_factor():
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        scaling_factor=0.5,
    )
    model, frames = KLAutoencoder(vae.eval()), _pictures(2, 16)
    with torch.no_grad():
        latents = model.encode(frames)
        assert torch.equal(latents, vae.encode(frames).latent_dist.mean * 0.5)
        assert torch.equal(model.decode(latents), vae.decode(latents / 0.5).sample)
    assert (latents.shape, model.downscale) == ((2, 4, 8, 8), 2)
    assert all(name.startswith(("vae.decoder", "vae.post_quant_conv")) for name in model.decoder_parameters())
