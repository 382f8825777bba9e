"""One UNet call for several videos against a call for each."""

from __future__ import annotations

import pytest
import torch

from dpscale.config.schema import DiffusionConfig
from dpscale.diffusion.refine import Pass, Progress
from dpscale.diffusion.together import advance_together
from dpscale.diffusion.video_conditions import video_conditions
from dpscale.diffusion.weights import PoseVideoModel
from tests.unit.diffusion.models import CHANNELS, LATENT, random_conditions, small_model

LENGTHS, STRENGTHS = (5, 9, 4), (1.0, 0.6, 0.4)
"""Frames of three videos, and the parts of five steps that each takes."""
TOLERANCE = 2e-5
"""Of latents of about 4 in single precision, after up to five steps of two or four windows in other batches."""


@pytest.fixture(scope="module")
def model() -> PoseVideoModel:
    return small_model()


def settings(guidance_scale: float = 3.0, window: int = 4) -> DiffusionConfig:
    return DiffusionConfig(preset="tiny", sampling_steps=5, guidance_scale=guidance_scale, window=window, stride=2, window_batch=4)


def started(model: PoseVideoModel, of: DiffusionConfig) -> list[tuple[Pass, Progress]]:
    passes = []
    for seed, (length, strength) in enumerate(zip(LENGTHS, STRENGTHS, strict=True)):
        told = video_conditions(model.denoiser, random_conditions(1, length, seed), of)
        guidance = torch.randn(length, CHANNELS, LATENT, LATENT, generator=torch.Generator().manual_seed(seed))
        sampling = Pass.of(model.denoiser, model.noise_schedule, told, strength, of)
        passes.append((sampling, sampling.start([guidance], seed)))
    return passes


def unfinished(passes: list[tuple[Pass, Progress]]) -> list[tuple[Pass, Progress]]:
    return [(sampling, progress) for sampling, progress in passes if progress.step < sampling.num_steps]


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_videos_at_any_steps_get_together_what_each_gets_alone(model: PoseVideoModel, guidance_scale: float) -> None:
    together, alone = (started(model, settings(guidance_scale)) for _ in range(2))
    joining, calls = together[2], 0
    while under_way := unfinished(together[:2] + ([joining] if calls >= 3 else [])):
        advance_together(under_way)
        calls += 1
    for (_, made), (sampling, progress) in zip(together, alone, strict=True):
        while progress.step < sampling.num_steps:
            sampling.advance(progress)
        torch.testing.assert_close(made.latents, progress.latents, rtol=0, atol=TOLERANCE)
    assert not torch.allclose(together[0][1].latents[:, :4], together[2][1].latents, atol=0.1)


def test_one_alone_is_advanced_to_the_same_bits(model: PoseVideoModel) -> None:
    (one, *_), (other, *_) = (started(model, settings()) for _ in range(2))
    while one[1].step < one[0].num_steps:
        advance_together([one])
        other[0].advance(other[1])
        assert (one[1].step, one[1].window) == (other[1].step, other[1].window)
        assert torch.equal(one[1].latents, other[1].latents)


def test_all_windows_go_into_one_call(model: PoseVideoModel) -> None:
    sizes: list[int] = []
    handle = model.denoiser.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    advance_together(started(model, settings()))
    handle.remove()
    assert sizes == [4 + 4 + 2], "two windows each where there are two, with and without identity"


def test_what_cannot_share_a_call_is_refused(model: PoseVideoModel) -> None:
    one = started(model, settings())[:1]
    with pytest.raises(ValueError, match="different denoisers"):
        advance_together(one + started(small_model(1), settings())[:1])
    with pytest.raises(ValueError, match=r"different shapes .* call: .\(24, 3, 4, 4\), \(24, 4, 4, 4\)"):
        advance_together(one + started(model, settings(window=3))[:1])
