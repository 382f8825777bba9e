"""One UNet call for several videos against a call for each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from threading import Barrier

import pytest
import torch

from dpscale.config.schema import DiffusionConfig
from dpscale.diffusion.refine import Pass, Progress
from dpscale.diffusion.together import Together, predict_together
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


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_videos_in_threads_get_together_what_each_gets_alone(model: PoseVideoModel, guidance_scale: float) -> None:
    together, (passes, alone) = Together(model.denoiser), (started(model, settings(guidance_scale)) for _ in range(2))
    sizes: list[int] = []
    handle = model.denoiser.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    everybody = Barrier(len(passes))

    def run(sampling: Pass, progress: Progress) -> None:
        with together.member() as predict:
            everybody.wait(60)
            assert sampling.run(progress, predict=predict)

    with ThreadPoolExecutor(len(passes)) as pool:
        for ended in wait([pool.submit(run, *one) for one in passes], timeout=60).done:
            ended.result()
    handle.remove()
    for (_, made), (sampling, progress) in zip(passes, alone, strict=True):
        sampling.run(progress)
        torch.testing.assert_close(made.latents, progress.latents, rtol=0, atol=TOLERANCE)
    windows = {1.0: (2, 4, 1), 3.0: (4, 4, 2)}[guidance_scale]
    assert sizes[0] == sum(windows), "the first windows of all go into one call"
    assert len(sizes) < sum(calls_of(sampling) for sampling, _ in alone)


def calls_of(sampling: Pass) -> int:
    progress, calls = sampling.start(None, 0), 0
    while progress.step < sampling.num_steps:
        sampling.advance(progress)
        calls += 1
    return calls


def test_passes_come_and_go(model: PoseVideoModel) -> None:
    """One that stops between two calls, or fails, keeps nobody waiting; one that comes later joins in."""
    together, passes, alone = Together(model.denoiser), started(model, settings()), started(model, settings())
    everybody, calls = Barrier(2), [0, 0]

    def run(number: int, most: int) -> bool:
        def should_stop() -> bool:
            calls[number] += 1
            return calls[number] > most

        sampling, progress = passes[number]
        with together.member() as predict:
            everybody.wait(60)
            return sampling.run(progress, should_stop=should_stop, predict=predict)

    with ThreadPoolExecutor(2) as pool:
        stopped, ended = pool.submit(run, 0, 2), pool.submit(run, 1, 1000)
        assert not stopped.result(60)
        assert ended.result(60)
    with together.member() as predict:
        assert passes[0][0].run(passes[0][1], predict=predict)
    for (_, made), (sampling, progress) in zip(passes[:2], alone, strict=False):
        sampling.run(progress)
        torch.testing.assert_close(made.latents, progress.latents, rtol=0, atol=TOLERANCE)


def test_one_alone_is_advanced_to_the_same_bits(model: PoseVideoModel) -> None:
    (one, *_), (other, *_) = (started(model, settings()) for _ in range(2))
    with Together(model.denoiser).member() as predict:
        while one[1].step < one[0].num_steps:
            one[0].advance(one[1], predict)
            other[0].advance(other[1])
            assert (one[1].step, one[1].window) == (other[1].step, other[1].window)
            assert torch.equal(one[1].latents, other[1].latents)


def test_windows_of_other_shapes_get_a_call_of_their_own(model: PoseVideoModel) -> None:
    passes = started(model, settings())[:1] + started(model, settings(window=3))[:1] + started(model, settings())[1:2]
    calls = [sampling.next_call(progress) for sampling, progress in passes]
    for answer, call in zip(predict_together(model.denoiser, calls), calls, strict=True):
        expected = model.denoiser(call.noisy, call.timestep, call.conditions)
        torch.testing.assert_close(answer, expected, rtol=0, atol=TOLERANCE)


def test_a_call_that_fails_fails_for_all_who_share_it(model: PoseVideoModel) -> None:
    together, passes = Together(model.denoiser), started(model, settings())[:2]
    everybody = Barrier(2)
    handle = model.denoiser.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(MemoryError("too many windows")))

    def run(sampling: Pass, progress: Progress) -> None:
        with together.member() as predict:
            everybody.wait(60)
            sampling.run(progress, predict=predict)

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(run, *one) for one in passes]
        for future in futures:
            with pytest.raises(MemoryError, match="too many windows"):
                future.result(60)
    handle.remove()
