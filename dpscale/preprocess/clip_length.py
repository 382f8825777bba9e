"""How long a clip is, from its container or its number of pictures: nothing is decoded."""

from __future__ import annotations

from pathlib import Path

import av

from dpscale.data.types import InputError
from dpscale.preprocess.clip_table import ClipRow
from dpscale.preprocess.decode import CONTAINERS
from dpscale.preprocess.image_folder import DEFAULT_FPS, pictures_in

_PER_SECOND = 1_000_000
"""libav's unit of a container's duration."""


def clip_seconds(row: ClipRow) -> float | None:
    """Length in s of what the row takes of its clip; None where the container does not say and the row gives no end.

    An end past the clip's own means its own. Raises InputError if the clip cannot be opened or ends before the row starts."""
    whole = len(pictures_in(row.path).files) / DEFAULT_FPS if row.path.is_dir() else _video_seconds(row.path)
    start = row.start_s or 0.0
    ends = [end for end in (whole, row.end_s) if end is not None]
    if whole is not None and start >= whole:
        raise InputError(f"{row.path}: column start is {start:g} s, the clip ends at {whole:g} s: give an earlier start")
    return min(ends) - start if ends else None


def _video_seconds(path: Path) -> float | None:
    try:
        with av.open(str(path), options=CONTAINERS) as container:
            if not container.streams.video:
                raise InputError(f"{path}: has sound but no picture: give a file with a video stream")
            stream = container.streams.video[0]
            if stream.duration and stream.time_base:
                return float(stream.duration * stream.time_base)
            return container.duration / _PER_SECOND if container.duration else None
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{path}: not a video that can be read ({error.strerror}): copy it again or re-encode it") from error
