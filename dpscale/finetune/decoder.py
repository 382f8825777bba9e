"""Decoder-only finetuning of the autoencoder (DiffPerformer Eq. 2): the encoder stays frozen, so cached latents stay valid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dpscale.data.seeds import derive
from dpscale.data.types import Clip
from dpscale.diffusion.encoders import to_unit
from dpscale.diffusion.weights import PoseVideoModel
from dpscale.finetune.memory import autocast
from dpscale.finetune.step import ALONE, Worker, sample_frames
from dpscale.finetune.trainable import TrainablePart


def trainable_decoder(model: PoseVideoModel) -> TrainablePart:
    return TrainablePart(model.autoencoder, model.autoencoder.decoder_parameters())


@dataclass(frozen=True)
class DecoderStep:
    """Step i -> Eq. 2, sum_n || I_n - E_dec(E_enc(I_n)) ||^2 as the mean over elements, on `batch_size` random training frames in -1..1."""

    model: PoseVideoModel
    clip: Clip
    batch_size: int
    seed: int
    worker: Worker = ALONE
    precision: Literal["fp32", "bf16"] = "fp32"

    def __call__(self, step: int) -> Float[Tensor, ""]:
        generator = torch.Generator().manual_seed(derive(self.seed, "decoder", self.clip.performer, self.worker.sample(step)))
        frames = sample_frames(self.clip.num_train, self.batch_size, generator).numpy()
        latents = torch.from_numpy(np.asarray(self.clip.latents[frames], np.float32)).to(self.worker.device)
        truth = to_unit(self.clip.frames[frames]).to(self.worker.device)
        with autocast(self.precision, self.worker.device):
            return (self.model.autoencoder.decode(latents) - truth).square().mean()
