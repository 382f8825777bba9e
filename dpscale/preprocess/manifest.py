"""What has to be prepared and what is finished: each clip has a key, a hash of its footage and of every setting behind it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dpscale.body.motion import motion_file
from dpscale.config.schema import Config
from dpscale.config.sources import Drive, MotionDrive, Performer, VideoDrive
from dpscale.data.checkpoint import marker_of
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError
from dpscale.preprocess.keys import body_key, driving_key, encoder_digest, main_key
from dpscale.preprocess.sources import source_digest

MAIN = "main"


@dataclass(frozen=True)
class Job:
    """One clip, or one driving movement that several clips share, to prepare."""

    kind: Literal["main", "movement", "driving"]
    name: str
    """Of the outcome: performer, `performer/drive`, or `drive NAME`."""
    performer: str
    drive: str
    source: str
    """Content hash of the footage or recording."""
    key: str
    finished: bool
    error: str | None = None
    """Why it cannot even be tried."""


def main_jobs(config: Config, layout: RunLayout) -> list[Job]:
    """Phase one: every performer's own clip, and the movement in every driving video that is used."""
    used = {video.drive for video in config.planned_videos()}
    performers = [_main_job(config, layout, performer) for performer in config.performers]
    return performers + [_movement_job(config, layout, d) for d in config.drives if isinstance(d, VideoDrive) and d.name in used]


def driving_jobs(config: Config, layout: RunLayout, failed: dict[str, str]) -> list[Job]:
    """Phase two: the driving clips of all planned videos. `failed`: error by name of each job of phase one that failed."""
    performers, drives = {p.name: p for p in config.performers}, {d.name: d for d in config.drives}
    planned = dict.fromkeys((v.performer, v.drive) for v in config.planned_videos())
    pairs = [(performers[p], drives[d]) for p, d in planned if drives[d].kind != "self"]
    return [_driving_job(config, layout, performer, drive, failed) for performer, drive in pairs]


def _main_job(config: Config, layout: RunLayout, performer: Performer) -> Job:
    try:
        source = source_digest(performer, config)
        key = main_key(config, performer, source, encoder_digest(config.diffusion))
    except InputError as error:
        return Job("main", performer.name, performer.name, "", "", "", False, str(error))
    return Job("main", performer.name, performer.name, "", source, key, _shard_key(layout, performer.name, MAIN) == key)


def _movement_job(config: Config, layout: RunLayout, drive: VideoDrive) -> Job:
    name = f"drive {drive.name}"
    try:
        source = source_digest(drive, config)
    except InputError as error:
        return Job("movement", name, "", drive.name, "", "", False, str(error))
    key = body_key(config, drive, source)
    return Job("movement", name, "", drive.name, source, key, layout.step("body", key).exists())


def _driving_job(config: Config, layout: RunLayout, performer: Performer, drive: Drive, failed: dict[str, str]) -> Job:
    name = f"{performer.name}/{drive.name}"
    try:
        reasons = list(_reasons_against(performer, drive, failed))
        if reasons:
            raise InputError("; ".join(reasons))
        main = marker_of(layout.shard(performer.name, MAIN))
        if isinstance(drive, MotionDrive):
            source = _recording_digest(drive)
            key = driving_key(config, source, main, num_frames=drive.num_frames, fps=drive.fps)
        else:
            source = source_digest(drive, config)
            key = driving_key(config, body_key(config, drive, source), main)
    except InputError as error:
        return Job("driving", name, performer.name, drive.name, "", "", False, str(error))
    return Job("driving", name, performer.name, drive.name, source, key, _shard_key(layout, performer.name, drive.name) == key)


def _reasons_against(performer: Performer, drive: Drive, failed: dict[str, str]) -> Iterator[str]:
    if drive.name == MAIN:
        yield f"drives: the name {MAIN!r} is taken by the performers' own clips; give drive {drive.name!r} another"
    if performer.name in failed:
        yield f"performer {performer.name!r} has no clip to drive: {failed[performer.name]}"
    if f"drive {drive.name}" in failed:
        yield f"driving video of {drive.name!r}: {failed[f'drive {drive.name}']}"


def _recording_digest(drive: MotionDrive) -> str:
    return hashlib.sha256(motion_file(drive.motion).read_bytes()).hexdigest()


def _shard_key(layout: RunLayout, performer: str, clip: str) -> str | None:
    return (marker_of(layout.shard(performer, clip)) or {}).get("key")
