"""Base training of `tiny` on rendered performers: patch components, single frames, then clips, then the decoder.

Resumable: every phase keeps its state in `<out>/work`, so several sittings add up. Training never sees a held-out seed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpscale.body.backdrop import available_photographs, photograph
from dpscale.config.schema import Config, PretrainConfig
from dpscale.data.seeds import derive
from dpscale.diffusion.conditions import Conditions, iuv_maps, skeleton_maps
from dpscale.diffusion.denoiser import without_temporal_layers
from dpscale.diffusion.encoders import to_unit
from dpscale.diffusion.loss import body_weights, diffusion_loss
from dpscale.diffusion.weights import PoseVideoModel
from dpscale.finetune.checkpoint import TrainingState, load_state, save_state
from dpscale.finetune.loop import TorchEngine, train
from dpscale.finetune.training_set import RenderedSet

BODY_WEIGHT = 3.0
IDENTITY_DROPOUT = 0.1
WEIGHT_DECAY = 0.01
CLIP_FRAMES = 8

Log = Callable[[str, int, int, float], object]


@dataclass(frozen=True)
class TrainingData:
    """A rendered set, and its latents once the encoder is fixed."""

    rendered: RenderedSet
    latents: Tensor
    """[P, F, C, h, w]."""
    warped: Tensor
    """[P, V, F, C, h, w]."""
    background: Tensor
    """[P, V, C, h, w]."""


@torch.no_grad()
def fit_encoder(model: PoseVideoModel, rendered: RenderedSet) -> None:
    """Fits the patch components on every fifth training frame and scikit-image's sample photographs."""
    frames = to_unit(rendered.frames[:, ::5].reshape(-1, *rendered.frames.shape[2:]))
    chosen = frames[torch.randperm(len(frames), generator=torch.Generator().manual_seed(0))[:1500]]
    model.autoencoder.fit_components(torch.cat([chosen, photograph_crops(frames.shape[-1], 64, np.random.default_rng(0))]))


@torch.no_grad()
def encode_set(model: PoseVideoModel, rendered: RenderedSet) -> TrainingData:
    def encode(pictures: np.ndarray) -> Tensor:
        parts = [model.autoencoder.encode(to_unit(part.reshape(-1, *part.shape[-3:]))).unflatten(0, part.shape[:-3]) for part in pictures]
        return torch.stack(parts)

    return TrainingData(rendered, encode(rendered.frames), encode(rendered.warped), encode(rendered.background))


def photograph_crops(size: int, count: int, rng: np.random.Generator) -> Tensor:
    """Random crops of the sample photographs, [count, 3, size, size] in -1..1: texture that rendered clips lack."""
    crops = []
    for _ in range(count):
        picture = photograph(str(rng.choice(available_photographs())))
        side = int(rng.integers(size, min(picture.shape[:2]) + 1))
        top, left = (int(rng.integers(0, picture.shape[axis] - side + 1)) for axis in (0, 1))
        part = torch.from_numpy(picture[top : top + side, left : left + side]).permute(2, 0, 1)[None].float()
        crops.append(F.interpolate(part, size=(size, size), mode="area")[0] * 2 - 1)
    return torch.stack(crops)


def train_phase(name: str, model: PoseVideoModel, data: TrainingData, config: Config, folder: Path, log: Log) -> TrainingState:
    """Runs or continues one phase: `image`, `video` or `decoder`. The model holds the averaged (EMA) weights afterwards."""
    settings = config.pretrain
    steps = {"image": settings.image_steps, "video": settings.video_steps, "decoder": settings.decoder_steps}[name]
    lr = settings.decoder_lr if name == "decoder" else settings.lr * (0.5 if name == "video" else 1.0)
    loss_of = {"image": _image_loss, "video": _video_loss, "decoder": _decoder_loss}[name]
    parameters = _parameters(name, model)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    engine = TorchEngine(parameters, [{"params": list(parameters.values()), "weight_decay": WEIGHT_DECAY}], lr)
    average = _Average(parameters, settings.ema_decay)
    begun = load_state(folder, name, "pretrain")
    if begun is not None:
        engine.load_state(begun.tensors)
        average.load(begun.tensors)
    keeper = _Keeper(folder, name, engine, average, begun, settings.checkpoint_every_s, steps, log)

    def step(number: int) -> Tensor:
        rng = np.random.default_rng(derive(config.run.seed, "pretrain", name, number))
        return loss_of(model, data, settings, rng)

    with without_temporal_layers(model.denoiser.unet) if name == "image" else nullcontext():
        train(engine, step, steps, start_step=keeper.start, log=keeper.log, save=keeper.save, lr_schedule=lambda n: lr * ramp(n, steps))
    average.copy_to(parameters)
    return keeper.state(steps)


def ramp(step: int, steps: int, warm_up: int = 200) -> float:
    """Learning-rate factor: linear warm-up, constant, linear fall to 2 % over the last third."""
    return min(1.0, (step + 1) / warm_up) * min(1.0, 0.02 + 0.98 * 3 * (steps - step) / max(steps, 1))


def _parameters(phase: str, model: PoseVideoModel) -> dict[str, nn.Parameter]:
    if phase == "decoder":
        return model.autoencoder.decoder_parameters()
    chosen = {f"denoiser.{n}": p for n, p in model.denoiser.named_parameters()}
    chosen |= {f"image_encoder.{n}": p for n, p in model.image_encoder.named_parameters()}
    temporal = ("temp_convs", "temp_attentions", "transformer_in")
    return {n: p for n, p in chosen.items() if phase == "video" or not any(part in n for part in temporal)}


def _image_loss(model: PoseVideoModel, data: TrainingData, settings: PretrainConfig, rng: np.random.Generator) -> Tensor:
    """Single frames of different performers, each with another frame of its performer as the reference."""
    count = settings.batch_frames
    who = rng.choice(len(data.latents), count, replace=len(data.latents) < count)
    when = rng.integers(data.latents.shape[1], size=(count, 1))
    return _denoising_loss(model, data, who, when, rng)


def _video_loss(model: PoseVideoModel, data: TrainingData, settings: PretrainConfig, rng: np.random.Generator) -> Tensor:
    """Clips of 8 frames: half consecutive as in sampling, half drawn at random as in finetuning, in order."""
    count, num_frames = max(1, settings.batch_frames // CLIP_FRAMES), data.latents.shape[1]
    who, clips = rng.integers(len(data.latents), size=count), []
    for _ in range(count):
        first = rng.integers(num_frames - CLIP_FRAMES + 1)
        consecutive = first + np.arange(CLIP_FRAMES)
        clips.append(consecutive if rng.uniform() < 0.5 else np.sort(rng.choice(num_frames, CLIP_FRAMES, replace=False)))
    return _denoising_loss(model, data, who, np.stack(clips), rng)


def _denoising_loss(model: PoseVideoModel, data: TrainingData, who: np.ndarray, when: np.ndarray, rng: np.random.Generator) -> Tensor:
    """`who` [B] performers, `when` [B, F] their frames; each clip with one of its poses."""
    size, resolution = data.rendered.frames.shape[-2], model.denoiser.pose_encoder.resolution
    reference = rng.integers(data.latents.shape[1], size=len(who))
    pose = rng.integers(data.warped.shape[1], size=len(who))
    clips = who[:, None], pose[:, None], when
    keypoints = data.rendered.keypoints[clips] + rng.normal(0, [0.3, 0.3, 0], (*when.shape, 18, 3))
    iuv = torch.from_numpy(data.rendered.iuv[clips])
    maps = {
        "keypoints": skeleton_maps(torch.from_numpy(keypoints).float().flatten(0, 1), size, resolution),
        "iuv": iuv_maps(iuv.flatten(0, 1), resolution),
    }
    maps = {kind: m.unflatten(0, when.shape) for kind, m in maps.items()}
    embedding = model.embed_images(to_unit(data.rendered.frames[who, reference]))[:, None]
    kept = torch.from_numpy(rng.uniform(size=(len(who), 1, 1)) >= IDENTITY_DROPOUT)
    warped = data.warped[clips]
    references = torch.cat([warped, data.background[who, pose][:, None].expand_as(warped)], 2).transpose(1, 2)
    conditions = Conditions(maps, embedding * kept, references)
    latents = data.latents[who[:, None], when].transpose(1, 2)
    weight = body_weights(iuv[..., 0] > 0, tuple(latents.shape[-2:]), BODY_WEIGHT)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    return diffusion_loss(model.denoiser, model.noise_schedule, latents, conditions, generator, weight, norm="l1")


def _decoder_loss(model: PoseVideoModel, data: TrainingData, settings: PretrainConfig, rng: np.random.Generator) -> Tensor:
    """Eq. 2 (plus L1, ours) on rendered frames and photographs."""
    num_performers, num_frames, size = data.rendered.frames.shape[:3]
    count = max(1, settings.batch_frames - 2)
    frames = to_unit(data.rendered.frames[rng.integers(num_performers, size=count), rng.integers(num_frames, size=count)])
    frames = torch.cat([frames, photograph_crops(size, 2, rng)])
    with torch.no_grad():
        latents = model.autoencoder.encode(frames)
    error = model.autoencoder.decode(latents) - frames
    return error.abs().mean() + error.square().mean()


class _Average:
    """Exponential moving average of parameters, with a shorter memory in the first steps."""

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.values = {n: p.detach().clone() for n, p in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self.parameters.items():
            self.values[name].lerp_(parameter, 1 - decay)

    def load(self, state: dict[str, Tensor]) -> None:
        self.values = {n: state[f"average.{n}"].clone() for n in self.parameters}

    @torch.no_grad()
    def copy_to(self, parameters: dict[str, nn.Parameter]) -> None:
        for name, parameter in parameters.items():
            parameter.copy_(self.values[name])


class _Keeper:
    """Averages, logs and saves after each step; saves by the clock, because steps are long and sittings are cut."""

    def __init__(
        self, folder: Path, phase: str, engine: TorchEngine, average: _Average, begun: TrainingState | None, every_s: float, steps: int, log: Log
    ) -> None:
        self.folder, self.phase, self.engine, self.average, self.every_s, self.steps, self.report = (
            folder,
            phase,
            engine,
            average,
            every_s,
            steps,
            log,
        )
        self.losses = list(begun.losses) if begun else []
        self.seconds_before, self.start = (begun.seconds, begun.step) if begun else (0.0, 0)
        self.began = self.saved = time.monotonic()

    def log(self, done: int, loss: float) -> None:
        self.average.update(done)
        self.losses.append(loss)
        self.report(self.phase, done, self.steps, loss)

    def state(self, done: int) -> TrainingState:
        tensors = self.engine.state() | {f"average.{n}": v for n, v in self.average.values.items()}
        return TrainingState(done, tensors, tuple(self.losses), self.seconds_before + time.monotonic() - self.began)

    def save(self, done: int) -> None:
        if done == self.steps or time.monotonic() - self.saved > self.every_s:
            save_state(self.folder, self.phase, "pretrain", self.state(done))
            self.saved = time.monotonic()


@contextmanager
def half_precision(model: PoseVideoModel) -> Iterator[None]:
    """The model in fp16 inside, as it is shipped; fp32 again afterwards."""
    parts = list(model.modules().values())
    for part in parts:
        part.half()
    try:
        yield
    finally:
        for part in parts:
            part.float()
