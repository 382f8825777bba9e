"""V_p <- E_dec(D_p(E_enc(V_s), P)): the diffusion model makes new targets from the representation (DiffPerformer 4.3)."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.layout import RunLayout
from dpscale.data.seeds import derive
from dpscale.diffusion.conditions import Conditions, pose_maps
from dpscale.diffusion.delta import FINETUNED, changed_tensors, load_delta
from dpscale.diffusion.noisy_pictures import encode_noisy
from dpscale.diffusion.reference import reference_pictures
from dpscale.diffusion.refine import refine
from dpscale.diffusion.weights import PoseVideoModel, References, load_model
from dpscale.joint.state import RefreshRequest
from dpscale.joint.video import VideoTask, load_task


class DiffusionRefresh:
    """Answers the refresh requests of one video, with a model that already holds its performer's weights."""

    def __init__(self, model: PoseVideoModel, video: VideoTask) -> None:
        self._model, self._video = model, video
        self._device = next(model.denoiser.parameters()).device
        self._references = self._find_references()
        self._conditions = self._make_conditions()

    @torch.no_grad()
    def __call__(self, request: RefreshRequest) -> UInt8[np.ndarray, "N H W 3"]:
        """V_p. A first pass of full strength starts from pure noise: it is the method without optimisation."""
        settings = self._video.config.diffusion
        from_noise = request.refresh == 0 and request.strength == 1
        model, seed = self._model, derive(self._video.config.run.seed, "refresh", self._video.name, request.refresh)
        noisy = self._video.config.joint.method == "noisy_image"
        if from_noise:
            guidance = None
        elif noisy:
            guidance = encode_noisy(model, request.guidance, request.strength, settings, seed)
        else:
            guidance = model.encode(request.guidance)
        latents = refine(model.denoiser, model.noise_schedule, self._conditions, guidance, request.strength, settings, seed, is_noisy=noisy)
        return model.decode(latents, self._references)

    def _find_references(self) -> References | None:
        if not self._model.denoiser.use_reference:
            return None
        return self._model.encode_references(reference_pictures(self._video.known, self._video.pose.keypoints, self._video.pose.iuv))

    def _make_conditions(self) -> Conditions:
        video = self._video
        maps = pose_maps(video.pose, video.config.diffusion.pose_kinds, self._model.denoiser.pose_encoder.resolution)
        return Conditions(
            pose_maps={kind: m[None].to(self._device) for kind, m in maps.items()},
            image_embedding=torch.from_numpy(np.asarray(video.image_embedding, np.float32)).to(self._device)[None, None],
            reference_latents=None if self._references is None else self._references.latents,
        )


class PerformerWeights:
    """Puts one performer's finetuned weights after another's into a resident base model."""

    def __init__(self, model: PoseVideoModel) -> None:
        self._modules: tuple[nn.Module, nn.Module] = (model.denoiser, model.autoencoder)
        self._base: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
        """The base's own values of every tensor that some performer has changed."""
        self._current: Path | None = None

    def use(self, finetuned: Path) -> None:
        """Loads the weights of a finished finetuning folder; those of the performer before leave no trace."""
        if finetuned == self._current:
            return
        self.restore()
        for module, base, name in zip(self._modules, self._base, FINETUNED, strict=True):
            own = module.state_dict()
            changed = changed_tensors(finetuned / name)
            base |= {key: own[key].detach().clone() for key in changed if key not in base and key in own}
            load_delta(finetuned / name, module)
        self._current = finetuned

    def restore(self) -> None:
        """The base as it was."""
        self._current = None
        for module, base in zip(self._modules, self._base, strict=True):
            module.load_state_dict(base, strict=False)


class RefreshService:
    """Answers the requests of any video: the base model is loaded once, performers' weights are swapped in."""

    def __init__(self, config: Config, layout: RunLayout) -> None:
        """Loads the base model. Raises InputError where the settings name none."""
        self._config, self._layout = config, layout
        self._model = load_model(config.diffusion)
        if config.scheduler.refresh_gpus > 0:
            self._model.denoiser.cuda()
            self._model.autoencoder.cuda()
        self._weights = PerformerWeights(self._model)
        self._videos: OrderedDict[str, DiffusionRefresh] = OrderedDict()

    def answer(self, video: VideoConfig, request: RefreshRequest) -> UInt8[np.ndarray, "N H W 3"]:
        """V_p of a video, with its performer's weights."""
        self._weights.use(self._layout.finetune(video.performer))
        name = self._layout.video_name(video)
        if name not in self._videos:
            self._videos[name] = DiffusionRefresh(self._model, load_task(self._config, self._layout, video))
        self._videos.move_to_end(name)
        while len(self._videos) > self._config.scheduler.warm_videos:
            self._videos.popitem(last=False)
        return self._videos[name](request)
