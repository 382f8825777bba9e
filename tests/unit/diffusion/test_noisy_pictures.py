from __future__ import annotations

import numpy as np
import pytest
import torch

from dpscale.config.schema import DiffusionConfig
from dpscale.diffusion.encoders import to_unit
from dpscale.diffusion.noisy_pictures import encode_noisy
from dpscale.diffusion.refine import sampling_schedule
from tests.small_performer import SIZE, small_model

SETTINGS = DiffusionConfig(preset="tiny", sampling_steps=10, guidance_scale=1.0)


@pytest.mark.parametrize("strength", [0.3, 0.7])
def test_the_picture_carries_noise_of_the_level_at_which_the_refresh_starts(strength: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an encoder that gives the picture back: sqrt(a) of it is left, the rest is white noise of variance 1 - a."""
    model = small_model()
    monkeypatch.setattr(model.autoencoder, "encode", lambda pictures: pictures)
    frames = np.random.default_rng(0).integers(0, 256, (10, SIZE, SIZE, 3), dtype=np.uint8)
    noisy, again, other = (torch.cat(list(encode_noisy(model, frames, strength, SETTINGS, seed))) for seed in (3, 3, 4))
    schedule = sampling_schedule(model.noise_schedule, SETTINGS.sampling_steps, strength)
    kept = float(schedule.alphas_cumprod[schedule.timesteps[0]])
    noise = noisy - kept**0.5 * to_unit(frames)
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float(noise.var()) == pytest.approx(1 - kept, rel=0.03)
    assert abs(float(torch.corrcoef(torch.stack([noise[:-1].flatten(), noise[1:].flatten()]))[0, 1])) < 0.02, "every frame has its own"
    assert torch.equal(noisy, again)
    assert not torch.equal(noisy, other)
