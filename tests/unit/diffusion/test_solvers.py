"""Solvers against diffusers' own schedulers, which keep their state inside and are told no frames."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

from dpscale.diffusion.refine import sampling_schedule
from dpscale.diffusion.solvers import REMEMBERS, Solver

SHAPE = (4, 6, 3, 3)
THEIRS: dict[str, Any] = {"dpmpp_2m": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}
PREDICTIONS = ["epsilon", "v_prediction", "sample"]


def noise_schedule(prediction: str, zero_snr: bool = False, ends_clean: bool = True, clip: bool = False) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=clip, set_alpha_to_one=ends_clean,
        prediction_type=prediction, rescale_betas_zero_snr=zero_snr, timestep_spacing="trailing",
    )  # fmt: skip


def denoised(noisy: torch.Tensor, timestep: torch.Tensor, schedule: DDIMScheduler) -> torch.Tensor:
    """A denoiser that is smooth and not linear in the latents, in the form that the schedule asks for."""
    clean = torch.tanh(noisy * (0.3 + timestep / 2000))
    bar = schedule.alphas_cumprod[timestep]
    if schedule.config.prediction_type == "sample":
        return clean
    eps = (noisy - bar.sqrt() * clean) / (1 - bar).sqrt()
    return eps if schedule.config.prediction_type == "epsilon" else bar.sqrt() * eps - (1 - bar).sqrt() * clean


def ours(kind: str, schedule: DDIMScheduler, latents: torch.Tensor) -> torch.Tensor:
    solver = Solver(kind, schedule)
    memory = solver.empty_memory(latents)
    for index, timestep in enumerate(schedule.timesteps):
        latents, memory = solver.step(index, denoised(latents, timestep, schedule), latents, memory)
        assert tuple(memory) == REMEMBERS[kind]
    return latents


def theirs(kind: str, schedule: DDIMScheduler, latents: torch.Tensor) -> torch.Tensor:
    config = {name: schedule.config[name] for name in ("num_train_timesteps", "trained_betas", "prediction_type")}
    ends = "zero" if schedule.config.set_alpha_to_one else "sigma_min"
    scheduler = THEIRS[kind](**config, timestep_spacing="trailing", solver_order=2, final_sigmas_type=ends)
    scheduler.set_timesteps(len(schedule.timesteps))
    assert torch.equal(scheduler.timesteps, schedule.timesteps)
    for timestep in scheduler.timesteps:
        latents = scheduler.step(denoised(latents, timestep, schedule), timestep, latents, return_dict=False)[0]
    return latents


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("ends_clean", [True, False])
@pytest.mark.parametrize(("steps", "strength"), [(10, 1.0), (20, 0.5), (3, 0.7), (1, 1.0)])
@pytest.mark.parametrize("kind", ["dpmpp_2m", "unipc"])
def test_it_does_what_diffusers_does(kind: str, steps: int, strength: float, ends_clean: bool, prediction: str) -> None:
    """1e-4: theirs work out lambda and the coefficients in single precision, ours in double."""
    schedule = sampling_schedule(noise_schedule(prediction, ends_clean=ends_clean), steps, strength)
    latents = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(kind, schedule, latents), theirs(kind, schedule, latents), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("steps", "strength"), [(20, 1.0), (20, 0.5)])
def test_of_gaussian_data_they_find_the_exact_flow_and_higher_orders_sooner(steps: int, strength: float) -> None:
    """Of data with variance v the estimate is alpha v x / (alpha^2 v + sigma^2), and the flow only scales x.

    Compared at the last timestep: the step from there to no noise is of first order for all."""
    schedule, v = sampling_schedule(noise_schedule("sample"), steps, strength), 0.04
    bars, error = schedule.alphas_cumprod[schedule.timesteps], {}
    for kind in REMEMBERS:
        solver, latents = Solver(kind, schedule), torch.ones(SHAPE)
        memory = solver.empty_memory(latents)
        for index, bar in enumerate(bars[:-1]):
            latents, memory = solver.step(index, bar.sqrt() * v * latents / (bar * v + 1 - bar), latents, memory)
        exact = ((bars[-1] * v + 1 - bars[-1]) / (bars[0] * v + 1 - bars[0])).sqrt()
        error[kind] = float((latents - exact).abs().max())
    assert error["dpmpp_2m"] < 0.5 * error["ddim"]
    assert error["unipc"] < error["dpmpp_2m"]


@pytest.mark.parametrize("kind", ["dpmpp_2m", "unipc"])
@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
def test_it_starts_from_pure_noise_and_ends_without_any(kind: str, prediction: str) -> None:
    """Zero terminal SNR: lambda is minus infinity at the start. A denoiser that is sure of one picture ends there, whatever the order."""
    schedule = sampling_schedule(noise_schedule(prediction, zero_snr=True), 7, 1.0)
    assert schedule.alphas_cumprod[schedule.timesteps[0]] == 0
    solver, clean = Solver(kind, schedule), torch.randn(SHAPE)
    latents = torch.randn(SHAPE)
    memory = solver.empty_memory(latents)
    for index, timestep in enumerate(schedule.timesteps):
        bar = schedule.alphas_cumprod[timestep]
        eps = (latents - bar.sqrt() * clean) / (1 - bar).sqrt()
        prediction_ = clean if prediction == "sample" else bar.sqrt() * eps - (1 - bar).sqrt() * clean
        latents, memory = solver.step(index, prediction_, latents, memory)
        assert torch.isfinite(latents).all()
    torch.testing.assert_close(latents, clean, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["ddim", "dpmpp_2m", "unipc"])
def test_frames_step_for_themselves(kind: str) -> None:
    """A step over all frames equals steps over some of them, to the bit: a pass may take them piece by piece."""
    schedule = sampling_schedule(noise_schedule("epsilon"), 6, 0.5)
    latents = torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))
    pieces = torch.cat([ours(kind, schedule, latents[:, frames]) for frames in (slice(0, 1), slice(1, 4), slice(4, 6))], 1)
    assert torch.equal(pieces, ours(kind, schedule, latents))


@pytest.mark.parametrize("kind", ["dpmpp_2m", "unipc"])
def test_estimates_are_clipped_where_the_schedule_says_so(kind: str) -> None:
    schedule = sampling_schedule(noise_schedule("sample", clip=True), 4, 1.0)
    solver, latents = Solver(kind, schedule), torch.zeros(SHAPE)
    _, memory = solver.step(0, torch.full(SHAPE, 3.0), latents, solver.empty_memory(latents))
    assert torch.equal(memory["clean"], torch.ones(SHAPE))
