"""From one noise level to the next: DDIM, DPM-Solver++ (2M) and UniPC over the same schedule.

Solvers are pure functions of the latents and of what the steps before left (`memory`), frame by frame: a pass can be stopped, saved and
continued anywhere. In the letters of DPM-Solver++ (Lu et al. 2022): alpha_t, sigma_t the signal's and the noise's part, lambda_t =
log(alpha_t / sigma_t), x the latents, m the denoiser's estimate of the clean latents."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from diffusers import DDIMScheduler
from jaxtyping import Float
from torch import Tensor

Kind = Literal["ddim", "dpmpp_2m", "unipc"]

REMEMBERS: dict[Kind, tuple[str, ...]] = {"ddim": (), "dpmpp_2m": ("clean",), "unipc": ("clean", "clean_before", "noisy")}
"""What each solver is given of earlier steps: the estimates m of the last step and of the one before it, and the last (corrected) x."""

Memory = dict[str, Tensor]


@dataclass(frozen=True)
class Solver:
    """A sampler over a schedule from `sampling_schedule`."""

    kind: Kind
    schedule: DDIMScheduler

    def empty_memory(self, latents: Float[Tensor, "C N h w"]) -> Memory:
        """Before the first step, which reads none of it."""
        return {name: torch.zeros_like(latents) for name in REMEMBERS[self.kind]}

    def step(
        self, index: int, prediction: Float[Tensor, "C F h w"], noisy: Float[Tensor, "C F h w"], memory: Memory
    ) -> tuple[Float[Tensor, "C F h w"], Memory]:
        """From timestep number `index` to the next: the new latents and the new memory of these frames."""
        if self.kind == "ddim":
            return self.schedule.step(prediction, self.schedule.timesteps[index], noisy, eta=0.0, return_dict=False)[0], {}
        clean = self._clean(index, prediction, noisy)
        if self.kind == "dpmpp_2m":
            return self._predict(index, noisy, clean, memory["clean"]), {"clean": clean}
        if index > 0:
            noisy = self._correct(index, clean, memory)
        following = self._predict(index, noisy, clean, memory["clean"])
        return following, {"clean": clean, "clean_before": memory["clean"], "noisy": noisy}

    @cached_property
    def _levels(self) -> list[float]:
        """alpha_bar at every timestep, then at the end, as DDIM takes them."""
        bars = [float(self.schedule.alphas_cumprod[t]) for t in self.schedule.timesteps]
        return [*bars, float(self.schedule.final_alpha_cumprod)]

    def _alpha(self, index: int) -> float:
        return math.sqrt(self._levels[index])

    def _sigma(self, index: int) -> float:
        return math.sqrt(1 - self._levels[index])

    def _lambda(self, index: int) -> float:
        """Half the log signal-to-noise ratio: infinite where there is no noise, or (with zero terminal SNR) no signal."""
        alpha, sigma = self._alpha(index), self._sigma(index)
        if sigma == 0 or alpha == 0:
            return math.inf if sigma == 0 else -math.inf
        return math.log(alpha / sigma)

    def _clean(self, index: int, prediction: Tensor, noisy: Tensor) -> Tensor:
        """m, clipped where the schedule says so: DDIM's "predicted x_0"."""
        alpha, sigma = self._alpha(index), self._sigma(index)
        config = self.schedule.config
        if config.prediction_type == "epsilon":
            clean = (noisy - sigma * prediction) / alpha
        elif config.prediction_type == "v_prediction":
            clean = alpha * noisy - sigma * prediction
        else:
            clean = prediction
        return clean.clamp(-config.clip_sample_range, config.clip_sample_range) if config.clip_sample else clean

    def _towards(self, index: int) -> tuple[float, float]:
        """sigma_t / sigma_s, and alpha_t (1 - e^-h) = alpha_t - alpha_s sigma_t / sigma_s: finite for infinite h too."""
        ratio = self._sigma(index + 1) / self._sigma(index)
        return ratio, self._alpha(index + 1) - self._alpha(index) * ratio

    def _predict(self, index: int, noisy: Tensor, clean: Tensor, before: Tensor) -> Tensor:
        """DPM-Solver++ 2M, eq. of algorithm 2; UniP-2 with B(h) = e^h - 1 is the same (Zhao et al. 2023, UniPC).

        The first step knows no estimate before, and the last one, to where lambda is infinite, is of first order as in the papers' code."""
        ratio, c = self._towards(index)
        first_order = ratio * noisy + c * clean
        if index == 0 or index == len(self._levels) - 2:
            return first_order
        return first_order + (0.5 * c * self._ratio(index)) * (clean - before)

    def _ratio(self, index: int) -> float:
        """1 / r = h / h_before: lengths in lambda of this step and of the one before; 0 after a step from pure noise."""
        return (self._lambda(index + 1) - self._lambda(index)) / (self._lambda(index) - self._lambda(index - 1))

    def _correct(self, index: int, clean: Tensor, memory: Memory) -> Tensor:
        """UniC: the last step taken again, knowing the estimate at its end (UniPC, eq. of algorithm 1, B(h) = e^h - 1)."""
        last = index - 1
        ratio, c = self._towards(last)
        base, turn = ratio * memory["noisy"] + c * memory["clean"], clean - memory["clean"]
        if last == 0:
            return base + (0.5 * c) * turn
        h, inverse_r = self._lambda(index) - self._lambda(last), self._ratio(last)
        phi = -math.expm1(-h) / h - 1
        b_1, b_2 = phi / math.expm1(-h), (-phi / h - 0.5) * 2 / math.expm1(-h)
        rho = (b_1 - b_2) * inverse_r / (inverse_r + 1)  # of the backward difference; solves rho_1 + rho_2 = b_1, -r rho_1 + rho_2 = b_2
        return base + c * (rho * inverse_r * (memory["clean"] - memory["clean_before"]) + (b_1 - rho) * turn)
