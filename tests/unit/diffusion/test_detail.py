from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dpscale.diffusion.autoencoder import PatchAutoencoder
from dpscale.diffusion.detail import decode_with_detail
from dpscale.diffusion.encoders import to_unit
from dpscale.diffusion.reference import ReferencePictures
from tests.small_performer import SIZE, small_model

FRAMES = 3


@pytest.fixture(scope="module")
def autoencoder() -> PatchAutoencoder:
    return small_model().autoencoder.requires_grad_(False)


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Two references of every frame, [2, FRAMES, 3, SIZE, SIZE], too rich for the autoencoder."""
    return torch.rand((2, FRAMES, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0)) * 2 - 1


def encode(autoencoder: PatchAutoencoder, pictures: torch.Tensor) -> torch.Tensor:
    return torch.stack([autoencoder.encode(reference) for reference in pictures])


@pytest.mark.parametrize("k", [0, 1])
def test_where_a_latent_equals_a_reference_its_picture_comes_back(autoencoder: PatchAutoencoder, pictures: torch.Tensor, k: int) -> None:
    known = encode(autoencoder, pictures)
    made = decode_with_detail(autoencoder, known[k], known, pictures)
    lost = (autoencoder.decode(known[k]) - pictures[k]).abs().mean()
    assert lost > 0.1
    assert (made - pictures[k]).abs().mean() < 0.1 * lost


def test_far_from_all_references_it_is_the_plain_decoder(autoencoder: PatchAutoencoder, pictures: torch.Tensor) -> None:
    known = encode(autoencoder, pictures)
    latents = known[0] + 10
    assert_close(decode_with_detail(autoencoder, latents, known, pictures), autoencoder.decode(latents), rtol=0, atol=1e-5)


def test_each_cell_is_judged_alone(autoencoder: PatchAutoencoder, pictures: torch.Tensor) -> None:
    """A change of the latent in one corner leaves the opposite corner's detail as it was."""
    known = encode(autoencoder, pictures)
    latents = known[0].clone()
    latents[..., :1, :1] += 10
    made, whole = decode_with_detail(autoencoder, latents, known, pictures), decode_with_detail(autoencoder, known[0], known, pictures)
    plain = autoencoder.decode(latents)
    assert_close(made[..., :4, :4], plain[..., :4, :4], rtol=0, atol=1e-5)
    corner = (..., slice(-8, None), slice(-8, None))
    assert (made[corner] - whole[corner]).abs().mean() < 0.1 * (plain[corner] - whole[corner]).abs().mean()


def test_a_model_decodes_a_video_frame_by_frame() -> None:
    model, rng = small_model(), np.random.default_rng(0)
    pictures = ReferencePictures(rng.integers(0, 256, (11, SIZE, SIZE, 3), dtype=np.uint8), rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
    references = model.encode_references(pictures)
    channels = model.autoencoder.latent_channels
    assert references.latents.shape == (1, 2 * channels, 11, SIZE // 8, SIZE // 8)
    latents = references.latents[0, channels:].transpose(0, 1)
    made = model.decode(latents, references)
    background = np.broadcast_to(pictures.background, made.shape)
    assert np.abs(made.astype(int) - background).mean() < 0.1 * np.abs(model.decode(latents).astype(int) - background).mean()
    assert_close(to_unit(model.decode(latents[9:10])), to_unit(model.decode(latents)[9:10]), rtol=0, atol=0.01)
