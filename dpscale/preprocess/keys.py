"""What each step's result follows from, as a hash: footage, and the settings behind the step. Equal key: the result may be kept.

A setting is in the key of the first step that it changes, so a new one redoes that step and those behind it, no earlier one."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path

from dpscale.config.schema import Config, DiffusionConfig
from dpscale.config.sources import Performer, Pose2simPerformer, RenderedPerformer, VideoDrive, VideoPerformer
from dpscale.data.shards import SCHEMA_VERSION
from dpscale.diffusion.parts import named_parts_digest
from dpscale.preprocess.footage import path_digest

_TRACK_SETTINGS = ("fps", "min_detected", "look_every")
_BODY_SETTINGS = ("size", "crop_margin", "train_fraction", "fit_steps", "smoothing")
_POSE_SETTINGS = ("keypoints", "surface", "flow")

Filmed = VideoPerformer | Pose2simPerformer | VideoDrive


def key_of(**parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def max_frames_of(config: Config, source: Performer | VideoDrive) -> int:
    return source.max_frames if isinstance(source, VideoDrive) else config.preprocess.max_frames


def track_key(config: Config, source: Filmed, digest: str) -> str:
    """Of the person followed through the footage with content hash `digest`."""
    person = None if isinstance(source, Pose2simPerformer) else source.person
    threads, settings = config.ray.torch_threads, _settings(config, _TRACK_SETTINGS)
    return key_of(step="track", source=digest, max_frames=max_frames_of(config, source), person=person, threads=threads, **settings)


def body_key(config: Config, source: Filmed, digest: str) -> str:
    """Of the body fitted to that person."""
    return key_of(step="body", track=track_key(config, source, digest), **_settings(config, _BODY_SETTINGS))


def main_key(config: Config, performer: Performer, digest: str, encoders: str) -> str:
    """Of a performer's own clip. `encoders`: digest of the encoders' weights. Raises InputError where files beside the footage are missing."""
    if isinstance(performer, RenderedPerformer):
        settings = _settings(config, ("size", "max_frames", "train_fraction"))
        return key_of(step="main", schema=SCHEMA_VERSION, source=digest, encoders=encoders, threads=config.ray.torch_threads, **settings)
    beside: dict[str, object] = {}
    if isinstance(performer, VideoPerformer):
        files = {"openpose": performer.openpose, "densepose": performer.densepose, "mesh": performer.mesh}
        beside = {name: path_digest(path) for name, path in files.items() if path}
        beside["split"] = performer.split
    settings = _settings(config, _POSE_SETTINGS)
    return key_of(step="main", schema=SCHEMA_VERSION, body=body_key(config, performer, digest), encoders=encoders, **beside, **settings)


def driving_key(config: Config, source: str | None, main: dict | None, **recording: object) -> str:
    """Of a driving clip. `source`: key of the driver's body, or hash of the recording; `main`: marker of the performer's own clip."""
    return key_of(step="driving", schema=SCHEMA_VERSION, source=source, main=main, size=config.preprocess.size, **recording)


def encoder_digest(settings: DiffusionConfig) -> str:
    """Of the encoders' weight files: latents made with others are not the same. For a hub id, the id itself."""
    named = named_parts_digest(settings, ("vae", "image_encoder"))
    if settings.weights is not None and not Path(settings.weights).is_dir():
        return settings.weights + (f" {named}" if named else "")
    digest = hashlib.sha256(named.encode())
    with resources.as_file(resources.files("dpscale.diffusion") / settings.preset) as embedded:
        folder = embedded if settings.weights is None else Path(settings.weights)
        for path in sorted(p for part in ("vae", "image_encoder") for p in (folder / part).glob("*.safetensors")):
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def settings_text(config: Config) -> str:
    """The settings that decide a clip, for its provenance."""
    return json.dumps(_settings(config, (*_TRACK_SETTINGS, *_BODY_SETTINGS, *_POSE_SETTINGS, "max_frames")), sort_keys=True)


def _settings(config: Config, names: tuple[str, ...]) -> dict[str, object]:
    return {name: value for name, value in config.preprocess.model_dump(mode="json").items() if name in names}
