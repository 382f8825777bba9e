"""One diffusion pass over a whole video, from noise or guided by latents (DiffPerformer 4.3, latent guidance).

A pass is a row of UNet calls, each for some windows of one denoising step. Everything that changes is in a `Progress`, and a call follows from
it alone: stopped after any call, saved and continued elsewhere, a pass gives the same bits. A frame takes its step as soon as the last window
that holds it is done; no later window of the step reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from diffusers import DDIMScheduler
from jaxtyping import Float, Int
from torch import Tensor

from dpscale.config.schema import DiffusionConfig
from dpscale.diffusion.conditions import Conditions
from dpscale.diffusion.denoiser import PoseDenoiser
from dpscale.diffusion.solvers import Memory, Solver
from dpscale.diffusion.video_conditions import VideoConditions, video_conditions
from dpscale.diffusion.windows import Blending, windows


@dataclass
class Progress:
    """Where a pass stands."""

    latents: Float[Tensor, "C N h w"]
    """Frames before the next window have taken the step already."""
    memory: Memory
    """What the solver remembers of earlier steps (solvers.REMEMBERS), frame by frame like the latents."""
    step: int = 0
    """Denoising step of the next UNet call."""
    window: int = 0
    """First window of the next UNet call."""
    pending: Float[Tensor, "C G h w"] | None = field(default=None)
    """Blending.pending of this step; None before its first window."""


@dataclass(frozen=True)
class UNetCall:
    """Some windows of one denoising step."""

    windows: list[slice]
    noisy: Float[Tensor, "B C F h w"]
    """With guidance, every window twice."""
    timestep: Int[Tensor, " B"]
    conditions: Conditions


Predict = Callable[[UNetCall], Float[Tensor, "B C F h w"]]
"""The UNet's answer to a call."""


def _ignore(progress: Progress) -> None:
    """For those who need no checkpoints."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Pass:
    """What stays the same during one diffusion pass: conditions, schedule and solver."""

    denoiser: PoseDenoiser
    conditions: VideoConditions
    solver: Solver
    settings: DiffusionConfig

    @classmethod
    def of(
        cls, denoiser: PoseDenoiser, noise_schedule: DDIMScheduler, conditions: VideoConditions, strength: float, settings: DiffusionConfig
    ) -> Pass:
        """`strength`: 0 < strength <= 1, the part of the diffusion time, and of the steps, that is run."""
        schedule = sampling_schedule(noise_schedule, settings.sampling_steps, strength)
        return cls(denoiser, conditions, Solver(settings.sampler.kind, schedule), settings)

    @property
    def num_steps(self) -> int:
        return len(self.solver.schedule.timesteps)

    @torch.no_grad()
    def start(self, guidance: Iterable[Float[Tensor, "_ C h w"]] | None, seed: int, is_noisy: bool = False) -> Progress:
        """Noise from `seed` alone; `guidance`, latents of all frames in pieces of any length, has it added at the first timestep, unless it
        `is_noisy` and carries noise of that strength already."""
        features, channels = self.conditions.pose_features, self.denoiser.latent_channels
        noise = torch.randn((channels, *features.shape[1:]), generator=torch.Generator().manual_seed(seed)).to(features)
        begin = 0
        for part in () if guidance is None else guidance:
            frames = slice(begin, begin + len(part))
            latents = part.transpose(0, 1)
            noise[:, frames] = latents if is_noisy else self.solver.schedule.add_noise(latents, noise[:, frames], self.solver.schedule.timesteps[:1])
            begin = frames.stop
        return Progress(noise, self.solver.empty_memory(noise))

    def run(
        self,
        progress: Progress,
        save: Callable[[Progress], object] = _ignore,
        should_stop: Callable[[], bool] = _never,
        predict: Predict | None = None,
    ) -> bool:
        """Continues to the end, or until `should_stop` says so between two UNet calls; whether the end was reached.

        `save` sees the progress after every call, and may ignore most of them. `predict` is who calls the UNet (together.Together); None: this
        pass itself."""
        while progress.step < self.num_steps:
            if should_stop():
                return False
            self.advance(progress, predict)
            save(progress)
        return True

    @torch.no_grad()
    def advance(self, progress: Progress, predict: Predict | None = None) -> None:
        """One UNet call: the next windows of the step, as many as fit, and the solver's step for the frames that they complete."""
        call = self.next_call(progress)
        self.take(progress, call, self._predict(call) if predict is None else predict(call))

    def _predict(self, call: UNetCall) -> Float[Tensor, "B C F h w"]:
        return self.denoiser(call.noisy, call.timestep, call.conditions)

    def next_call(self, progress: Progress) -> UNetCall:
        """What the UNet is given next. With classifier-free guidance over the image embedding both halves go into one call; scale 1 needs
        no second one."""
        windows, guided = self._blending.where[progress.window : progress.window + self._windows_per_call], self.settings.guidance_scale != 1
        noisy = torch.stack([progress.latents[:, w] for w in windows])
        if guided:
            noisy = torch.cat([noisy, noisy])
        return UNetCall(windows, noisy, self._timesteps[progress.step].expand(len(noisy)), self.conditions.at(windows, guided))

    def take(self, progress: Progress, call: UNetCall, prediction: Float[Tensor, "B C F h w"]) -> None:
        """What follows from the UNet's answer to `next_call`: blending, and the solver's step."""
        blended = self._blending.add(progress.window, self._guided(prediction), progress.pending)
        self._take_step(progress, blended.frames, blended.mean)
        progress.window, progress.pending = progress.window + len(call.windows), blended.pending
        if progress.window == len(self._blending.where):
            progress.step, progress.window, progress.pending = progress.step + 1, 0, None

    def _take_step(self, progress: Progress, frames: slice, prediction: Float[Tensor, "C F h w"]) -> None:
        memory = {name: value[:, frames] for name, value in progress.memory.items()}
        latents, memory = self.solver.step(progress.step, prediction, progress.latents[:, frames], memory)
        progress.latents[:, frames] = latents
        for name, value in memory.items():
            progress.memory[name][:, frames] = value

    def _guided(self, prediction: Float[Tensor, "B C F h w"]) -> Float[Tensor, "_ C F h w"]:
        scale = self.settings.guidance_scale
        if scale == 1:
            return prediction
        conditional, unconditional = prediction.chunk(2)
        return unconditional + scale * (conditional - unconditional)

    @property
    def _windows_per_call(self) -> int:
        """`window_batch` bounds what the UNet is given: with guidance every window goes in twice."""
        return max(1, self.settings.window_batch // (1 if self.settings.guidance_scale == 1 else 2))

    @cached_property
    def _blending(self) -> Blending:
        num_frames = self.conditions.num_frames
        return Blending(windows(num_frames, self.settings.window, self.settings.stride), num_frames, self.conditions.pose_features.device)

    @cached_property
    def _timesteps(self) -> Tensor:
        """On the denoiser's device: a call waits for no copy."""
        return self.solver.schedule.timesteps.to(self.conditions.pose_features.device)


def refine(
    denoiser: PoseDenoiser,
    noise_schedule: DDIMScheduler,
    conditions: Conditions,
    guidance: Float[Tensor, "N C h w"] | None,
    strength: float,
    settings: DiffusionConfig,
    seed: int,
) -> Float[Tensor, "N C h w"]:
    """Latents of a video of N frames (conditions with B = 1, F = N), all in memory.

    Noise of `strength` is added to `guidance`, E_enc(V_s), in latent space and denoised from there; without guidance the start is pure
    noise, whatever the strength. At every step the predictions of overlapping windows are averaged. Deterministic: the noise comes from
    `seed` alone."""
    told = video_conditions(denoiser, conditions, settings)
    whole = Pass.of(denoiser, noise_schedule, told, 1.0 if guidance is None else strength, settings)
    progress = whole.start(None if guidance is None else [guidance], seed)
    whole.run(progress)
    return progress.latents.transpose(0, 1)


def denoising_steps(sampling_steps: int, strength: float) -> int:
    """Of `sampling_steps` at full strength those that a pass of `strength` takes."""
    return max(1, round(sampling_steps * strength))


def sampling_schedule(noise_schedule: DDIMScheduler, sampling_steps: int, strength: float) -> DDIMScheduler:
    """The part `strength` of the diffusion time, in the same part of `sampling_steps`, at least one.

    Where they divide the time evenly these are the last steps of the whole schedule; with few steps the start stays where the
    strength puts it, and the last step always ends without noise."""
    num_steps = denoising_steps(sampling_steps, strength)
    num_timesteps = num_steps * max(1, round(noise_schedule.config.num_train_timesteps * strength / num_steps))
    betas = noise_schedule.betas[:num_timesteps].tolist()
    schedule = DDIMScheduler.from_config(
        noise_schedule.config, num_train_timesteps=len(betas), trained_betas=betas, rescale_betas_zero_snr=False, timestep_spacing="trailing"
    )
    schedule.set_timesteps(num_steps)
    return schedule
