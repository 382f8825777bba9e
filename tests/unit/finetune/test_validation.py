from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from dpscale.config.schema import DiffusionConfig
from dpscale.finetune.validation import NUM_FRAMES, HeldOutVideo
from tests.small_performer import SIZE, small_clip, small_model

SETTINGS = DiffusionConfig(preset="tiny", sampling_steps=2, guidance_scale=1.0)


def test_samples_the_first_held_out_frames_and_draws_no_number_of_the_training():
    model = small_model()
    sample = HeldOutVideo(model, small_clip("ann", model, num_frames=22, num_train=12), SETTINGS, seed=0)
    before = torch.get_rng_state()
    first, again = sample(), sample()
    assert first.shape == (NUM_FRAMES, SIZE, SIZE, 3)
    np.testing.assert_array_equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)


def test_shows_the_model_as_it_stands_and_never_the_true_frames():
    model = small_model()
    clip = small_clip("ann", model)
    sample = HeldOutVideo(model, clip, SETTINGS, seed=0)
    blank = replace(clip, frames=clip.frames.copy(), latents=np.zeros_like(clip.latents))
    blank.frames[clip.num_train :] = 0
    before = sample()
    assert before.shape == (3, SIZE, SIZE, 3)
    np.testing.assert_array_equal(HeldOutVideo(model, blank, SETTINGS, seed=0)(), before)
    with torch.no_grad():
        model.denoiser.unet.conv_out.bias += 1.0
    assert not np.array_equal(sample(), before)
