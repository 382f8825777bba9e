"""Whether a shard is what its marker says, row by row: for `dpscale inspect`, after a copy or a suspicion."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpscale.data.checkpoint import marker_of
from dpscale.data.shards import FILE_NAME, ShardError, read_clip
from dpscale.data.types import Clip

_NUM_PARTS = 24
_MAX_FLOW = 2.0
"""Of the picture's sides: nothing on a body moves further from one frame to the next and stays in the picture."""
_NAMED = 5
"""Bad frames that a message lists."""


@dataclass(frozen=True)
class ShardReport:
    """What one shard holds, and what is wrong with it."""

    folder: Path
    clip: Clip | None
    """None where it cannot be read."""
    num_bytes: int
    problems: tuple[str, ...]


def find_shards(folder: Path) -> list[Path]:
    """Every shard at or below a folder (a shard, `shards/`, a run folder or several of them), finished or not, in order of their paths."""
    return sorted({path.parent for path in folder.rglob(FILE_NAME)} | {path for path in folder.rglob("clip=*") if path.is_dir()})


def check_shard(folder: Path) -> ShardReport:
    """Reads all of a shard and checks it against its marker and against itself."""
    path = folder / FILE_NAME
    num_bytes = path.stat().st_size if path.exists() else 0
    marker = marker_of(folder)
    if marker is None or not path.exists():
        return ShardReport(folder, None, num_bytes, ("unfinished: run the same `dpscale preprocess` again",))
    problems = []
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != marker.get("sha256"):
            problems.append("its bytes are not those that were written (sha256 differs from the marker's): copy it again or delete it and preprocess")
    try:
        clip = read_clip(folder)
        frame = pq.read_table(path, columns=["frame"]).column(0).to_numpy()
    except (ShardError, pa.ArrowException, OSError, KeyError, ValueError) as error:
        return ShardReport(folder, None, num_bytes, (*problems, f"cannot be read: {str(error).splitlines()[0]}"))
    if len(clip) != marker.get("num_frames") or not np.array_equal(frame, np.arange(len(clip))):
        problems.append(f"has {len(frame)} rows that do not count from 0 to {marker.get('num_frames')} - 1")
    return ShardReport(folder, clip, num_bytes, (*problems, *_contradictions(clip)))


def _contradictions(clip: Clip) -> Iterator[str]:
    pose = clip.pose
    arrays = {"keypoints": pose.keypoints, "flow": pose.flow, "rotations": pose.motion.rotations, "root": pose.motion.root, "latents": clip.latents}
    for name, array in arrays.items():
        if array is not None:
            yield from _in_frames(f"{name} is not finite", ~np.isfinite(array).reshape(len(clip), -1).all(1))
    yield from _in_frames(f"iuv names parts above {_NUM_PARTS}", (pose.iuv[..., 0] > _NUM_PARTS).any((1, 2)))
    yield from _in_frames("no body in the iuv", ~(pose.iuv[..., 0] > 0).any((1, 2)))
    yield from _in_frames("flow is valid off the body", (pose.flow_valid & (pose.iuv[..., 0] == 0)).any((1, 2)))
    yield from _in_frames("flow leaves the picture", (np.abs(np.nan_to_num(pose.flow)) > _MAX_FLOW).any((1, 2, 3)))
    if pose.flow_valid[-1].any() and clip.num_train == len(clip):
        yield "flow of the last frame is valid, and nothing follows it"
    if not 1 <= clip.num_train <= len(clip):
        yield f"num_train is {clip.num_train}, of {len(clip)} frames"


def _in_frames(what: str, bad: np.ndarray | np.bool) -> Iterator[str]:
    frames = np.flatnonzero(bad)
    if len(frames):
        more = f" and {len(frames) - _NAMED} more" if len(frames) > _NAMED else ""
        yield f"{what} in frame {', '.join(map(str, frames[:_NAMED]))}{more}"
