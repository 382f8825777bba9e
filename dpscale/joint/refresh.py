"""V_p <- E_dec(D_p(E_enc(V_s), P)): the diffusion model makes new targets from the representation (DiffPerformer 4.3)."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.array_files import give_back, scratch_array
from dpscale.data.layout import RunLayout
from dpscale.data.seeds import derive
from dpscale.diffusion.conditions import pose_maps
from dpscale.diffusion.encoders import FRAMES_AT_ONCE
from dpscale.diffusion.mapped_weights import map_weights
from dpscale.diffusion.noisy_pictures import encode_noisy
from dpscale.diffusion.reference import ReferencePictures, reference_pictures
from dpscale.diffusion.refine import Pass, Progress
from dpscale.diffusion.together import Together
from dpscale.diffusion.video_conditions import VideoConditions, encode_poses
from dpscale.diffusion.weights import PoseVideoModel, References, load_model
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.delta_cache import DeltaCache
from dpscale.joint.performers import PerformerWeights
from dpscale.joint.state import RefreshRequest
from dpscale.joint.unfinished import UnfinishedRefresh
from dpscale.joint.video import VideoTask, load_task


class RefreshStopped(Exception):
    """A refresh that ended between two UNet calls, because it was asked to."""

    def __init__(self, progress: Progress) -> None:
        """`progress`: what is done."""
        super().__init__("stopped between two UNet calls")
        self.progress = progress


class DiffusionRefresh:
    """Answers the refresh requests of one video, with a model that already holds its performer's weights.

    Conditions are made once, a window or a few frames at a time, and kept: what does not depend on trained weights for good, pose features
    as long as the pose encoder is the same. Pictures of all frames are in files; of each frame, memory holds some small latents."""

    def __init__(self, model: PoseVideoModel, video: VideoTask, together: Together | None = None) -> None:
        """`together`: what other threads' passes share UNet calls with this one's; None: nobody's do."""
        self._model, self._video = model, video
        self._together = Together(model.denoiser) if together is None else together
        self._device = next(model.denoiser.parameters()).device
        self._references = self._find_references()
        self._features: tuple[str, Tensor] | None = None
        """With the hash of the pose encoder that made them."""

    @torch.no_grad()
    def __call__(
        self,
        request: RefreshRequest,
        progress: Progress | None = None,
        save: Callable[[Progress], object] = lambda progress: None,
        out: np.ndarray | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> UInt8[np.ndarray, "N H W 3"]:
        """V_p, in `out` if it is given. A first pass of full strength starts from pure noise: it is the method without optimisation.

        `progress` continues an unfinished pass of the same request; `save` sees the progress after every UNet call. Raises RefreshStopped
        where `should_stop`, asked before every call, says so."""
        settings, model = self._video.config.diffusion, self._model
        sampling = Pass.of(model.denoiser, model.noise_schedule, self._conditions(), request.strength, settings)
        if progress is None:
            progress = self._start(sampling, request)
        with self._together.member() as predict:
            ended = sampling.run(progress, save, should_stop, predict)
        if not ended:
            raise RefreshStopped(progress)
        return model.decode(progress.latents.transpose(0, 1), self._references, out)

    def resumed(
        self, request: RefreshRequest, unfinished: UnfinishedRefresh, save_every_s: float, should_stop: Callable[[], bool] = lambda: False
    ) -> UInt8[np.ndarray, "N H W 3"]:
        """V_p, mapped from a temporary file. Continues what `unfinished` holds, and leaves its progress there from time to time.

        Raises RefreshStopped where `should_stop` says so between two UNet calls; the progress is there then."""
        out = scratch_array(request.guidance.shape, np.uint8)
        try:
            return self(request, unfinished.load(self._device), unfinished.saves_every(save_every_s), out, should_stop)
        except RefreshStopped as stopped:
            unfinished.save(stopped.progress)
            raise

    def _start(self, sampling: Pass, request: RefreshRequest) -> Progress:
        config, model = self._video.config, self._model
        seed = derive(config.run.seed, "refresh", self._video.name, request.refresh)
        if request.refresh == 0 and request.strength == 1:
            return sampling.start(None, seed)
        if config.joint.method == "noisy_image":
            return sampling.start(encode_noisy(model, request.guidance, request.strength, config.diffusion, seed), seed, is_noisy=True)
        return sampling.start(model.encoded(request.guidance), seed)

    def _find_references(self) -> References | None:
        if not self._model.denoiser.use_reference:
            return None
        known, pose = self._video.known, self._video.pose
        warped = scratch_array((len(pose), *known.frames.shape[1:]), np.uint8)
        for begin in range(0, len(pose), FRAMES_AT_ONCE):
            frames = slice(begin, begin + FRAMES_AT_ONCE)
            warped[frames] = reference_pictures(known, pose.keypoints[frames], pose.iuv[frames]).warped
            give_back(warped)
            give_back(pose.iuv)
        return self._model.encode_references(ReferencePictures(warped, known.background))

    def _conditions(self) -> VideoConditions:
        embedding = torch.from_numpy(np.asarray(self._video.image_embedding, np.float32)).to(self._device)[None]
        return VideoConditions(self._pose_features(), embedding, () if self._references is None else self._references.pieces)

    def _pose_features(self) -> Float[Tensor, "P N h w"]:
        denoiser, video = self._model.denoiser, self._video
        weights = content_hash(denoiser.pose_encoder)
        if self._features is None or self._features[0] != weights:
            self._features = (weights, encode_poses(denoiser, self._pose_maps, len(video.pose), video.config.diffusion))
        return self._features[1]

    def _pose_maps(self, frames: slice) -> dict[str, Float[Tensor, "F c R R"]]:
        pose, kinds = self._video.pose.at(frames), self._video.config.diffusion.pose_kinds
        maps = pose_maps(pose, kinds, self._model.denoiser.pose_encoder.resolution)
        give_back(pose.iuv)
        return {kind: m.to(self._device) for kind, m in maps.items()}


def content_hash(module: nn.Module) -> str:
    """Of all weights of a small module."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class RefreshService:
    """Answers the requests of any video: the base model is loaded once, performers' weights are swapped in."""

    def __init__(self, config: Config, layout: RunLayout, deltas: DeltaCache | None = None) -> None:
        """Loads the base model, whose weights this node's services share. `deltas` may be read ahead by others; none: a cache of its own.

        Raises InputError where the settings name no model."""
        self._config, self._layout = config, layout
        self._model = load_model(config.diffusion)
        map_weights((self._model.denoiser, self._model.autoencoder, self._model.image_encoder))
        self._weights = PerformerWeights(self._model, DeltaCache.of(config.scheduler) if deltas is None else deltas)
        if config.scheduler.refresh_gpus > 0:
            self._model.denoiser.cuda()
            self._model.autoencoder.cuda()
        self._videos: OrderedDict[str, DiffusionRefresh] = OrderedDict()
        self._together = Together(self._model.denoiser)
        self._lock = threading.Lock()
        """Of the videos and of whose weights are in place."""
        self._performers: Counter[str] = Counter()
        """Of the videos that are being answered: never more than one."""

    def answer(self, video: VideoConfig, request: RefreshRequest, should_stop: Callable[[], bool] = lambda: False) -> UInt8[np.ndarray, "N H W 3"]:
        """V_p of a video, with its performer's weights, mapped from a temporary file. Threads may ask for several videos of one performer at
        once, which then share UNet calls; RuntimeError where another performer's weights are in use.

        Leaves its progress in the video's folder from time to time and continues what it finds there, which VideoStore removes when
        the refresh is committed. Raises RefreshStopped where `should_stop` says so between two UNet calls; the progress is there then."""
        with self._answering(video) as refresh:
            unfinished = VideoStore.of(self._config, self._layout, video).unfinished(request.refresh)
            return refresh.resumed(request, unfinished, self._config.scheduler.refresh_checkpoint_s, should_stop)

    @contextmanager
    def _answering(self, video: VideoConfig) -> Iterator[DiffusionRefresh]:
        with self._lock:
            if set(self._performers) - {video.performer}:
                raise RuntimeError(f"{video.performer}'s refresh was begun while another performer's weights are in use: {list(self._performers)}")
            self._weights.use(self._layout.finetune(video.performer))
            refresh = self._warmed(video)
            self._performers[video.performer] += 1
        try:
            yield refresh
        finally:
            with self._lock:
                self._performers -= Counter([video.performer])

    def _warmed(self, video: VideoConfig) -> DiffusionRefresh:
        name = self._layout.video_name(video)
        if name not in self._videos:
            self._videos[name] = DiffusionRefresh(self._model, load_task(self._config, self._layout, video), self._together)
        self._videos.move_to_end(name)
        while len(self._videos) > max(self._config.scheduler.warm_videos, self._config.scheduler.refresh_together):
            self._videos.popitem(last=False)
        return self._videos[name]
