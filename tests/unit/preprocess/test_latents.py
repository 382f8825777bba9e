"""Latents do not depend on the batch, and weights have a digest."""

import numpy as np
import torch

from dpscale.config.schema import DiffusionConfig
from dpscale.diffusion.encoders import to_unit
from dpscale.diffusion.weights import tiny_model
from dpscale.preprocess import latents
from dpscale.preprocess.keys import encoder_digest


def test_latents_are_those_of_the_autoencoder_whatever_the_batch(monkeypatch):
    model, frames = tiny_model(0, size=32, widths=(16, 16)), np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    model.autoencoder.fit_components(to_unit(frames))
    whole = latents.encode_frames(model, frames)
    monkeypatch.setattr(latents, "_BATCH_PX", 2 * 32 * 32)
    np.testing.assert_array_equal(latents.encode_frames(model, frames), whole)
    with torch.no_grad():
        slow = np.concatenate([model.autoencoder.encode(to_unit(frame[None])).numpy() for frame in frames])
    np.testing.assert_allclose(whole, slow, rtol=2e-3, atol=1e-3)  # float16
    assert whole.dtype == np.float16


def test_the_digest_follows_the_encoders_files(tmp_path):
    for part in ("vae", "image_encoder", "unet"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "model.safetensors").write_bytes(part.encode())
    settings = DiffusionConfig(preset="tiny", weights=str(tmp_path))
    first = encoder_digest(settings)
    (tmp_path / "unet" / "model.safetensors").write_bytes(b"other")
    assert encoder_digest(settings) == first
    (tmp_path / "vae" / "model.safetensors").write_bytes(b"other")
    assert encoder_digest(settings) != first
    assert encoder_digest(DiffusionConfig(preset="sd21", weights="owner/model")) == "owner/model"
