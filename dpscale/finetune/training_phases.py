"""The two trainings of a performer, traced without weights: what of the model trains, and what a step allocates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dpscale.config.schema import Config
from dpscale.diffusion.conditions import POSE_CHANNELS, Conditions
from dpscale.diffusion.loss import diffusion_loss
from dpscale.diffusion.untrained import UntrainedModel, untrained_model
from dpscale.diffusion.weights import PoseVideoModel
from dpscale.finetune.memory import autocast, recomputed
from dpscale.finetune.memory_trace import StepMemory, step_memory
from dpscale.finetune.trainable import TrainablePart, trainable_denoiser


@dataclass(frozen=True)
class TracedPhase:
    """Sizes in bytes."""

    name: str
    weights: int
    """Of the whole module that trains."""
    trained: int
    largest: int
    """The largest trained tensor."""
    step: StepMemory


@dataclass(frozen=True)
class TracedTraining:
    denoiser: TracedPhase
    decoder: TracedPhase
    image_encoder: int
    """Bytes of its weights."""
    assumed: tuple[str, ...]
    """Parts whose sizes are those of the published ones, because their own config is not on this machine."""


def traced_training(config: Config) -> TracedTraining:
    """One step of each phase on tensors without storage; takes seconds. Raises InputError where the settings do not fit each other.

    bf16 follows autocast's rules on the CPU; CUDA's keep the inputs of normalisation in fp32, which takes more."""
    with torch.device("meta"):
        model = untrained_model(config.diffusion)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in (model.denoiser, model.autoencoder):
            without_storage(module)
        parts = {"denoiser": trainable_denoiser(model.denoiser, config.finetune.trainable), "decoder": decoder_part(model)}
        losses = {"denoiser": lambda: denoiser_loss(config, model), "decoder": lambda: decoder_loss(config, model)}
        phases = {name: _traced(name, part, losses[name], config) for name, part in parts.items()}
    return TracedTraining(phases["denoiser"], phases["decoder"], _num_bytes(model.image_encoder), model.assumed)


def decoder_part(model: UntrainedModel | PoseVideoModel) -> TrainablePart:
    return TrainablePart(model.autoencoder, model.autoencoder.decoder_parameters())


def without_storage(root: nn.Module) -> None:
    """Meta tensors become fake ones of the CPU: they take no memory either, and attention and autocast do with them what they do on a device."""
    for module in root.modules():
        for name, parameter in module.named_parameters(recurse=False):
            module.register_parameter(name, nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype)))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))


def _traced(name: str, part: TrainablePart, loss: Callable[[], Tensor], config: Config) -> TracedPhase:
    with recomputed(part.module, config.finetune.gradient_checkpointing):
        step = step_memory(part, loss)
    sizes = [p.nbytes for p in part.parameters.values()]
    return TracedPhase(name, _num_bytes(part.module), sum(sizes), max(sizes), step)


def denoiser_loss(config: Config, model: UntrainedModel | PoseVideoModel) -> Tensor:
    """Eq. 1 as finetune.step computes it, on zeros of the settings' sizes."""
    denoiser, frames = model.denoiser, config.finetune.clip_frames
    latents = torch.zeros(_latents(config, model, frames)).transpose(0, 1)[None]
    resolution = denoiser.pose_encoder.resolution
    maps = {kind: torch.zeros(1, frames, POSE_CHANNELS[kind], resolution, resolution) for kind in config.diffusion.pose_kinds}
    embedding = torch.zeros(1, 1, denoiser.unet.config.cross_attention_dim)
    references = torch.cat([latents, latents], 1) if denoiser.use_reference else None
    weight = torch.ones_like(latents[:, :1]) if config.finetune.body_weight else None
    with autocast(config.finetune.precision, "cpu"):
        return diffusion_loss(
            denoiser, model.noise_schedule, latents, Conditions(maps, embedding, references), torch.Generator(), weight, config.finetune.loss
        )


def decoder_loss(config: Config, model: UntrainedModel | PoseVideoModel) -> Tensor:
    """Eq. 2 as finetune.decoder computes it, on zeros of the settings' sizes."""
    frames, side = config.finetune.decoder.batch_size, config.preprocess.size
    latents, truth = torch.zeros(_latents(config, model, frames)), torch.zeros(frames, 3, side, side)
    with autocast(config.finetune.precision, "cpu"):
        return (model.autoencoder.decode(latents) - truth).square().mean()


def _latents(config: Config, model: UntrainedModel | PoseVideoModel, frames: int) -> tuple[int, int, int, int]:
    side = config.preprocess.size // model.autoencoder.downscale
    return frames, model.autoencoder.latent_channels, side, side


def _num_bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
