"""What does a refresh gain over calling a diffusion pipeline for every window? `tiny` at 128 px on a performer rendered on the spot; all
passes of one video by jobs/configs/tiny.toml, the first and four refreshes, each way taking each pass in turn on the same guidance.

`plain`: a pipeline call per window of 16 frames, as with diffusers: CLIP embedding of I_ref, pose maps drawn and encoded, known frames
warped and encoded, V_s encoded, the windows one by one through the UNet, classifier-free guidance as two calls, all frames of the window
decoded. The calls go step by step together, for pose features and predictions blend over windows as in dpscale: same steps, same noise,
same result. `dpscale`: joint.refresh, from a process in which the model is loaded and nothing else made; what it makes once is part of its
first pass. Latents of both ways must be equal within 1e-4 (their variance is about 1).

Settings: `few steps`: those of jobs/configs/tiny.toml (2 steps at full strength, no guidance); `guided`: the same with guidance 6; with
`--full` `many steps`: 20 steps, guidance 6, where nearly all is the UNet's own work. `speedup_vs_plain` is that of `few steps`, all passes
together. Seams: warping error along the renderer's exact flow where windows begin or end, against elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import arguments, finish
from dpscale.body.rendered import HELD_OUT_SEED, RenderedClip, render_performer
from dpscale.config.load import load
from dpscale.config.schema import Config
from dpscale.data.seeds import derive
from dpscale.diffusion.conditions import Conditions, pose_maps
from dpscale.diffusion.reference import KnownFrames, reference_pictures
from dpscale.diffusion.refine import Progress, sampling_schedule
from dpscale.diffusion.weights import PoseVideoModel, load_model
from dpscale.diffusion.windows import blend, borders, windows
from dpscale.evaluate.frame_metrics import seam_score
from dpscale.joint.plan import num_refreshes
from dpscale.joint.refresh import DiffusionRefresh
from dpscale.joint.state import RefreshRequest
from dpscale.joint.video import VideoTask

_KNOWN, _DRIVEN, _SIZE, _STRENGTH = 48, 72, 128, 0.7
_TOLERANCE = 1e-4
_SETTINGS = {"few steps": {}, "guided": {"guidance_scale": 6.0}, "many steps": {"guidance_scale": 6.0, "sampling_steps": 20}}


def main() -> None:
    """Each setting in turn."""
    given = arguments(__doc__ or "", device={"default": "cpu", "choices": ["cpu", "cuda"]})
    torch.backends.cudnn.allow_tf32 = False  # both ways in fp32: TF32 differs between sizes of batches by more than they may
    clip = render_performer(HELD_OUT_SEED + 60, "dance_a", _KNOWN + _DRIVEN, 15.0, _SIZE)
    rows, differences = [], []
    for name in ("few steps", "guided", "many steps") if given.full else ("few steps", "guided"):
        done = _measured(name, clip, given.device)
        rows.append(done.row)
        differences.append(done.difference)
    if max(differences) > _TOLERANCE:
        raise RuntimeError(f"the two ways do not do the same: latents differ by {max(differences):.2g}")
    chosen = rows[0]
    finish("refresh", given.json, {
        "speedup_vs_plain": chosen["speedup"],
        "speedups_vs_plain": {row["settings"]: row["speedup"] for row in rows},
        "max_difference": max(differences),
        "frames_per_s": chosen["dpscale_frames_per_s"],
        "frames_per_s_plain": chosen["plain_frames_per_s"],
        "seams": {row["settings"]: {name: row[name] for name in ("warp_error_at_borders", "warp_error_elsewhere")} for row in rows},
        "device": given.device if given.device == "cpu" else torch.cuda.get_device_name(),
        "torch_threads": torch.get_num_threads(),
    }, rows)  # fmt: skip


@dataclass(frozen=True)
class _Measured:
    row: dict[str, Any]
    difference: float
    """Greatest difference of the latents of any pass."""


def _measured(name: str, clip: RenderedClip, device: str) -> _Measured:
    model, video = _model_and_video(name, clip, device)
    num_passes = num_refreshes(video.config.joint) + 1
    plain, own = partial(_plain_pass, model, video), _Own(model, video)
    ways: dict[str, Callable[[RefreshRequest], tuple[np.ndarray, Tensor]]] = {"plain": plain, "dpscale": own}
    seconds: dict[str, list[float]] = {"plain": [], "dpscale": []}
    made, difference = np.zeros((_DRIVEN, _SIZE, _SIZE, 3), np.uint8), 0.0
    _warm_up(model, video, device)
    for number in range(num_passes):
        request = RefreshRequest(number, number, 1.0 if number == 0 else _STRENGTH, made)
        results = {}
        for way in ("plain", "dpscale") if number % 2 else ("dpscale", "plain"):
            _wait(device)
            start = time.perf_counter()
            results[way] = ways[way](request)
            _wait(device)
            seconds[way].append(time.perf_counter() - start)
        made = results["dpscale"][0]
        difference = max(difference, float((results["plain"][1] - results["dpscale"][1]).abs().max()))
        levels = np.abs(results["plain"][0].astype(int) - made).max()
        if levels > 1:
            raise RuntimeError(f"the pictures of the two ways differ by {levels} levels: more than rounding")
    pose = clip.pose.at(slice(_KNOWN, None))
    seams = seam_score(made, pose.flow, pose.flow_valid, borders(_where(video.config)))
    frames = num_passes * _DRIVEN
    return _Measured({
        "settings": name, "speedup": sum(seconds["plain"]) / sum(seconds["dpscale"]),
        "speedup_first_pass": seconds["plain"][0] / seconds["dpscale"][0],
        "speedup_refreshes": sum(seconds["plain"][1:]) / sum(seconds["dpscale"][1:]),
        "plain_frames_per_s": frames / sum(seconds["plain"]), "dpscale_frames_per_s": frames / sum(seconds["dpscale"]),
        "warp_error_at_borders": seams.at_borders, "warp_error_elsewhere": seams.elsewhere,
    }, difference)  # fmt: skip


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _model_and_video(name: str, clip: RenderedClip, device: str) -> tuple[PoseVideoModel, VideoTask]:
    config = load(Path("jobs/configs/tiny.toml"), [])
    config = config.model_copy(update={"diffusion": config.diffusion.model_copy(update=_SETTINGS[name])})
    model = load_model(config.diffusion)
    for part in (model.denoiser, model.autoencoder, model.image_encoder):
        part.to(device)
    known = KnownFrames(clip.frames[:_KNOWN], clip.pose.iuv[:_KNOWN], clip.pose.keypoints[:_KNOWN], clip.mask[:_KNOWN])
    pose = clip.pose.at(slice(_KNOWN, None))
    return model, VideoTask("rendered--self", config, pose, clip.frames[0], model.embed_image(clip.frames[0]), known)


def _where(config: Config) -> list[slice]:
    return windows(_DRIVEN, config.diffusion.window, config.diffusion.stride)


@torch.no_grad()
def _warm_up(model: PoseVideoModel, video: VideoTask, device: str) -> None:
    """Each network once in the shapes of both ways: first calls choose kernels, and neither way should pay for the other."""
    short = replace(video, pose=video.pose.at(slice(0, video.config.diffusion.window + video.config.diffusion.stride)))
    request = RefreshRequest(1, 1, _STRENGTH, np.zeros((len(short.pose), _SIZE, _SIZE, 3), np.uint8))
    DiffusionRefresh(model, short)(request)
    call = _Call(model, short, slice(0, video.config.diffusion.window))
    call.features = call.own_features
    call.predict(torch.zeros(model.denoiser.latent_channels, len(call.frames), *call.features.shape[-2:], device=device), torch.tensor(9), 1.0)
    model.embed_image(video.reference)
    _wait(device)


class _Own:
    """joint.refresh; the first request pays for what is kept."""

    def __init__(self, model: PoseVideoModel, video: VideoTask) -> None:
        self._model, self._video = model, video
        self._refresh: DiffusionRefresh | None = None

    def __call__(self, request: RefreshRequest) -> tuple[np.ndarray, Tensor]:
        self._refresh = self._refresh or DiffusionRefresh(self._model, self._video)
        seen: list[Progress] = []
        frames = self._refresh(request, save=lambda progress: seen.__setitem__(slice(None), [progress]))
        return frames, seen[0].latents


# ------------------------------------------------------------------------------------------- plain


class _Call:
    """The pipeline call of one window: what it makes for itself, kept for its steps and no longer."""

    def __init__(self, model: PoseVideoModel, video: VideoTask, window: slice) -> None:
        pose, denoiser = video.pose.at(window), model.denoiser
        device = next(denoiser.parameters()).device
        self._model, self.frames = model, range(window.start, window.stop)
        self._embedding = torch.from_numpy(model.embed_image(video.reference)).to(device)[None, None]
        maps = pose_maps(pose, video.config.diffusion.pose_kinds, denoiser.pose_encoder.resolution)
        self.own_features = denoiser.encode_pose({kind: m[None].to(device) for kind, m in maps.items()})[0]
        self._references = model.encode_references(reference_pictures(video.known, pose.keypoints, pose.iuv))
        self.features = self.own_features
        """Blended with the neighbours' before the first step."""

    def predict(self, noisy: Tensor, timestep: Tensor, scale: float) -> Tensor:
        told = Conditions({}, self._embedding, self._references.latents, self.features[None])
        timestep = timestep[None].to(noisy.device)
        conditional = self._model.denoiser(noisy[None], timestep, told)[0]
        if scale == 1:
            return conditional
        unconditional = self._model.denoiser(noisy[None], timestep, told.without_identity())[0]
        return unconditional + scale * (conditional - unconditional)

    def decode(self, latents: Tensor) -> np.ndarray:
        return self._model.decode(latents.transpose(0, 1), self._references)


@torch.no_grad()
def _plain_pass(model: PoseVideoModel, video: VideoTask, request: RefreshRequest) -> tuple[np.ndarray, Tensor]:
    """Pictures and latents. The calls of all windows step by step together, so that each step's predictions blend."""
    settings, where = video.config.diffusion, _where(video.config)
    calls = [_Call(model, video, window) for window in where]
    features = blend([call.own_features for call in calls], where, _DRIVEN)
    schedule = sampling_schedule(model.noise_schedule, settings.sampling_steps, request.strength)
    seed = derive(video.config.run.seed, "refresh", video.name, request.refresh)
    shape = (1, model.denoiser.latent_channels, _DRIVEN, *features.shape[-2:])
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(features)[0]
    guided = latents.clone()
    for call, window in zip(calls, where, strict=True):
        call.features = features[:, window]
        if request.refresh > 0:
            encoded = model.encode(request.guidance[window]).transpose(0, 1)
            guided[:, window] = schedule.add_noise(encoded, latents[:, window], schedule.timesteps[:1])
    latents = guided
    for timestep in schedule.timesteps:
        parts = [call.predict(latents[:, window], timestep, settings.guidance_scale) for call, window in zip(calls, where, strict=True)]
        latents = schedule.step(blend(parts, where, _DRIVEN), timestep, latents, eta=0.0, return_dict=False)[0]
    frames = np.empty((_DRIVEN, _SIZE, _SIZE, 3), np.uint8)
    for call, window in zip(calls, where, strict=True):
        frames[window] = call.decode(latents[:, window])
    return frames, latents


if __name__ == "__main__":
    main()
