"""One diffusion pass over a whole video, from noise or guided by latents (DiffPerformer 4.3, latent guidance)."""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers import DDIMScheduler
from jaxtyping import Float
from torch import Tensor

from dpscale.config.schema import DiffusionConfig
from dpscale.diffusion.conditions import Conditions
from dpscale.diffusion.denoiser import PoseDenoiser
from dpscale.diffusion.windows import blend, windows


@torch.no_grad()
def refine(
    denoiser: PoseDenoiser,
    noise_schedule: DDIMScheduler,
    conditions: Conditions,
    guidance: Float[Tensor, "N C h w"] | None,
    strength: float,
    settings: DiffusionConfig,
    seed: int,
    is_noisy: bool = False,
) -> Float[Tensor, "N C h w"]:
    """Latents of a video of N frames (conditions with B = 1, F = N).

    Noise of `strength` (0 < strength <= 1: the part of the diffusion time, and of the DDIM steps, that is run) is added to
    `guidance`, E_enc(V_s), in latent space and denoised from there; without guidance the start is pure noise, whatever the strength. Guidance
    that `is_noisy` carries noise of that strength already. At every step the predictions of overlapping windows are averaged.
    Deterministic: the noise comes from `seed` alone."""
    conditions = replace(conditions, pose_features=_pose_features(denoiser, conditions, settings))
    num_frames, (height, width) = conditions.pose_features.shape[2], conditions.pose_features.shape[3:]
    noise = torch.randn((1, denoiser.latent_channels, num_frames, height, width), generator=torch.Generator().manual_seed(seed))
    noise = noise.to(conditions.pose_features)
    schedule = sampling_schedule(noise_schedule, settings.sampling_steps, 1.0 if guidance is None else strength)
    latents = noise if guidance is None else guidance.transpose(0, 1)[None]
    if guidance is not None and not is_noisy:
        latents = schedule.add_noise(latents, noise, schedule.timesteps[:1])
    for timestep in schedule.timesteps:
        prediction = _predict(denoiser, latents, timestep, conditions, settings)
        latents = schedule.step(prediction, timestep, latents, eta=0.0, return_dict=False)[0]
    return latents[0].transpose(0, 1)


def sampling_schedule(noise_schedule: DDIMScheduler, sampling_steps: int, strength: float) -> DDIMScheduler:
    """DDIM over the part `strength` of the diffusion time, in the same part of `sampling_steps`, at least one.

    Where they divide the time evenly these are the last steps of the whole schedule; with few steps the start stays where the
    strength puts it, and the last step always ends without noise."""
    num_steps = max(1, round(sampling_steps * strength))
    num_timesteps = num_steps * max(1, round(noise_schedule.config.num_train_timesteps * strength / num_steps))
    betas = noise_schedule.betas[:num_timesteps].tolist()
    schedule = DDIMScheduler.from_config(
        noise_schedule.config, num_train_timesteps=len(betas), trained_betas=betas, rescale_betas_zero_snr=False, timestep_spacing="trailing"
    )
    schedule.set_timesteps(num_steps)
    return schedule


def _pose_features(denoiser: PoseDenoiser, conditions: Conditions, settings: DiffusionConfig) -> Float[Tensor, "1 P N h w"]:
    """Features are computed once per pass, in the windows in which the frames are denoised."""
    num_frames = next(iter(conditions.pose_maps.values())).shape[1]
    where = windows(num_frames, settings.window, settings.stride)
    parts = [denoiser.encode_pose({kind: maps[:, w] for kind, maps in conditions.pose_maps.items()})[0] for w in where]
    return blend(parts, where, num_frames)[None]


def _predict(denoiser, latents: Float[Tensor, "1 C N h w"], timestep: Tensor, conditions: Conditions, settings: DiffusionConfig) -> Tensor:
    where, references = windows(latents.shape[2], settings.window, settings.stride), conditions.reference_latents
    parts: list[Tensor] = []
    for first in range(0, len(where), settings.window_batch):
        batch = where[first : first + settings.window_batch]
        noisy = torch.cat([latents[:, :, w] for w in batch])
        told = replace(
            conditions,
            pose_maps={},
            pose_features=torch.cat([conditions.pose_features[:, :, w] for w in batch]),
            image_embedding=conditions.image_embedding.expand(len(batch), -1, -1),
            reference_latents=None if references is None else torch.cat([references[:, :, w] for w in batch]),
        )
        parts += list(_guided(denoiser, noisy, timestep.expand(len(batch)), told, settings.guidance_scale))
    return blend(parts, where, latents.shape[2])[None]


def _guided(denoiser, noisy: Float[Tensor, "B C F h w"], timestep: Tensor, conditions: Conditions, scale: float) -> Float[Tensor, "B C F h w"]:
    """Classifier-free guidance over the image embedding; scale 1 needs no second prediction."""
    conditional = denoiser(noisy, timestep, conditions)
    if scale == 1:
        return conditional
    unconditional = denoiser(noisy, timestep, conditions.without_identity())
    return unconditional + scale * (conditional - unconditional)
