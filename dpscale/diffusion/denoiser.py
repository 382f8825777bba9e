"""Pose-guided denoiser D_p (DiffPerformer 4.1): a video UNet whose input is widened by pose and, for `tiny`, the reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import DDIMScheduler, UNet3DConditionModel, UNetMotionModel
from diffusers.models.resnet import TemporalConvLayer
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from jaxtyping import Float, Int
from torch import Tensor, nn

from dpscale.data.types import InputError
from dpscale.diffusion.conditions import Conditions
from dpscale.diffusion.pose_encoder import PoseEncoder

VideoUNet = UNet3DConditionModel | UNetMotionModel
"""Backbones: ModelScope's 3D UNet, or Stable Diffusion's 2D UNet with AnimateDiff's motion modules."""


class PoseDenoiser(nn.Module):
    """Predicts noise (or what the noise schedule's `prediction_type` says) from noisy latents and conditions.

    Channels of the UNet's input, in order: noisy latent, pose features and, where the encoder's config says so, reference latents.
    With references (`tiny`, which predicts z_0) the UNet says what to add to the warped frames, and hears the noisy latent only as
    far as it holds signal: sqrt(alpha_bar_t) of it, nothing at t = 999, where a small network would let the noise through."""

    def __init__(self, unet: VideoUNet, pose_encoder: PoseEncoder, noise_schedule: DDIMScheduler) -> None:
        super().__init__()
        self.unet, self.pose_encoder = unet, pose_encoder
        self.register_buffer("signal", noise_schedule.alphas_cumprod.sqrt().float(), persistent=False)
        widened = unet.config.out_channels * (3 if self.use_reference else 1) + pose_encoder.config.out_channels
        if unet.config.in_channels != widened:
            raise ValueError(
                f"the UNet takes {unet.config.in_channels} input channels, latent, pose and reference have {widened}: widen it with widen_input first"
            )

    @property
    def use_reference(self) -> bool:
        return bool(self.pose_encoder.config.use_reference)

    @property
    def latent_channels(self) -> int:
        return int(self.unet.config.out_channels)

    def encode_pose(self, pose_maps: dict[str, Float[Tensor, "B F c H W"]]) -> Float[Tensor, "B P F h w"]:
        return self.pose_encoder(pose_maps)

    def forward(self, noisy: Float[Tensor, "B C F h w"], timestep: Int[Tensor, " B"], conditions: Conditions) -> Float[Tensor, "B C F h w"]:
        pose = conditions.pose_features if conditions.pose_features is not None else self.encode_pose(conditions.pose_maps)
        if not self.use_reference:
            return self._unet([noisy, pose], timestep, conditions)
        if conditions.reference_latents is None:
            raise ValueError("this denoiser takes reference latents: give Conditions.reference_latents")
        warped = conditions.reference_latents[:, : self.latent_channels]
        heard = noisy * self.signal[timestep].to(noisy)[:, None, None, None, None]
        return warped + self._unet([heard, pose, conditions.reference_latents], timestep, conditions)

    def _unet(self, channels: list[Tensor], timestep: Tensor, conditions: Conditions) -> Tensor:
        if len({c.shape[-2:] for c in channels}) > 1:
            sizes = ", ".join(f"{c.shape[-2]} x {c.shape[-1]}" for c in channels)
            raise InputError(f"latent and conditions differ in size ({sizes}): the pose encoder was built for another diffusion.latent_size")
        context = conditions.image_embedding
        if isinstance(self.unet, UNetMotionModel):
            context = self._context_of_frames(context, channels[0].shape[2])
        return self.unet(torch.cat(channels, 1), timestep, context, return_dict=False)[0]

    def _context_of_frames(self, embedding: Float[Tensor, "B 1 D"], frames: int) -> Float[Tensor, "BF 1 D"]:
        """As UNetMotionModel takes it: its 2D layers see each frame as a picture of its own."""
        longest = self.unet.config.motion_max_seq_length
        if frames > longest:
            raise InputError(f"{frames} frames at once: the motion modules take at most {longest}; lower finetune.clip_frames or diffusion.window")
        return embedding.repeat_interleave(frames, 0)


def widen_input(unet: VideoUNet, extra_channels: int) -> VideoUNet:
    """Widens `conv_in` by channels with zero weights, in place: the output stays what it was, to the bit (DreamPose does the same)."""
    old = unet.conv_in
    new = nn.Conv2d(
        old.in_channels + extra_channels, old.out_channels, old.kernel_size, padding=old.padding, dtype=old.weight.dtype, device=old.weight.device
    )
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, : old.in_channels] = old.weight
        new.bias.copy_(old.bias)
    unet.conv_in = new
    unet.register_to_config(in_channels=new.in_channels)
    return unet


def silence_temporal_layers(unet: UNet3DConditionModel) -> None:
    """Zero-initialises the outputs of temporal attention, in place; those of temporal convolutions start so.

    The UNet then treats frames one by one."""
    for module in unet.modules():
        if isinstance(module, TransformerTemporalModel):
            nn.init.zeros_(module.proj_out.weight)
            nn.init.zeros_(module.proj_out.bias)


@contextmanager
def without_temporal_layers(unet: UNet3DConditionModel) -> Iterator[None]:
    """Skips the temporal layers: the same function while they are silent, and far cheaper, for training on single frames."""
    temporal = [m for m in unet.modules() if isinstance(m, TemporalConvLayer | TransformerTemporalModel)]
    for module in temporal:
        module.forward = _pass_tuple if isinstance(module, TransformerTemporalModel) else _pass
    try:
        yield
    finally:
        for module in temporal:
            del module.forward


def _pass(hidden_states: Tensor, **_: object) -> Tensor:
    return hidden_states


def _pass_tuple(hidden_states: Tensor, *_: object, **__: object) -> tuple[Tensor]:
    return (hidden_states,)
