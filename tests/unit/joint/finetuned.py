"""Finetuned weights as a performer's training leaves them, whole or as low-rank factors, by random numbers."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from dpscale.diffusion.delta import saved_name
from dpscale.diffusion.weights import PoseVideoModel
from dpscale.finetune.lora import adapted
from dpscale.finetune.trainable import trainable_denoiser


def write_finetuned(folder: Path, model: PoseVideoModel, seed: int, lora_rank: int | None = None) -> Path:
    """Deltas of everything that trains by default; `model` stays as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach() + 0.05 * torch.randn(tensor.shape, generator=generator)

    with adapted(model.denoiser, lora_rank, seed):
        part = trainable_denoiser(model.denoiser, "temporal")
        save_file({saved_name(name): moved(p) for name, p in part.parameters.items()}, folder / "denoiser.safetensors")
    save_file({name: moved(p) for name, p in model.autoencoder.decoder_parameters().items()}, folder / "decoder.safetensors")
    return folder
