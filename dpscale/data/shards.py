"""Parquet form of a clip: one row a frame, fixed-shape tensor columns, readable with plain pyarrow.

    table = pyarrow.parquet.read_table("<run>/shards/performer=NAME/clip=main/frames.parquet")
    iuv = table["iuv"].combine_chunks().to_numpy_ndarray()      # uint8 [N, H, W, 3]

Pictures, masks, IUV, keypoints and motion are kept to the bit; flow and latents are rounded to float16."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Shaped

from dpscale.data.checkpoint import commit_folder, marker_of
from dpscale.data.types import BodyMotion, BodyShape, Clip, Pose

SCHEMA_VERSION = 2
FILE_NAME = "frames.parquet"
_METADATA_KEY = b"dpscale"
_ROW_GROUP_BYTES = 32 * 2**20

_COLUMN_TYPES = {
    "frames": np.uint8, "iuv": np.uint8, "keypoints": np.float32, "flow": np.float16, "flow_valid": np.uint8,
    "rotations": np.float32, "root": np.float32, "latents": np.float16, "mask": np.uint8,
}  # fmt: skip
_READ_AS = {"flow": np.float32, "flow_valid": np.bool_, "latents": np.float32}


class ShardError(RuntimeError):
    """A shard that is missing, unfinished, or of a schema that this version does not read."""


def write_clip(folder: Path, clip: Clip) -> None:
    """Writes the clip as `folder`, whole or not at all. Equal clips give equal bytes (for one pyarrow version).

    `clip.provenance` is kept in the file's metadata and, with the file's hash, in the completion marker."""
    table = _table(clip)

    def write(target: Path) -> None:
        path = target / FILE_NAME
        rows = max(1, min(len(clip), _ROW_GROUP_BYTES // max(1, table.nbytes // len(clip))))
        pq.write_table(table, path, compression="zstd", row_group_size=rows, use_dictionary=False, write_statistics=False)
        marker["sha256"] = _file_hash(path)

    marker: dict[str, Any] = {"schema": SCHEMA_VERSION, "num_frames": len(clip), **clip.provenance}
    commit_folder(folder, write, marker)


def read_clip(folder: Path) -> Clip:
    """The clip that `write_clip` wrote; flow and latents come back as float32. Raises ShardError."""
    if not is_complete(folder):
        raise ShardError(f"{folder}: holds no finished shard: run `dpscale preprocess` with the same settings")
    file = pq.ParquetFile(folder / FILE_NAME, memory_map=True)
    meta = json.loads((file.schema_arrow.metadata or {}).get(_METADATA_KEY, b"{}"))
    if meta.get("schema") != SCHEMA_VERSION:
        raise ShardError(f"{folder}: has schema {meta.get('schema')}, this version reads {SCHEMA_VERSION}: delete the folder and preprocess again")
    column = {name: _read_column(file, name) for name in file.schema_arrow.names if name in _COLUMN_TYPES}
    motion = BodyMotion(column["rotations"], column["root"], meta["focal_px"], (meta["center_px"][0], meta["center_px"][1]))
    shape = BodyShape(np.array(meta["betas"], np.float64), np.array(meta["log_scales"], np.float64), np.array(meta["girths"], np.float64))
    embedding = meta["image_embedding"]
    return Clip(
        performer=meta["performer"], clip=meta["clip"], fps=meta["fps"], num_train=meta["num_train"],
        pose=Pose(column["keypoints"], column["iuv"], column["flow"], column["flow_valid"], shape, motion),
        frames=column.get("frames"), latents=column.get("latents"),
        image_embedding=None if embedding is None else np.array(embedding, np.float32), mask=column.get("mask"), provenance=meta["provenance"],
    )  # fmt: skip


def is_complete(folder: Path) -> bool:
    """Whether the folder holds a finished shard."""
    return marker_of(folder) is not None


def _table(clip: Clip) -> pa.Table:
    pose = clip.pose
    arrays = {
        "frames": clip.frames, "iuv": pose.iuv, "keypoints": pose.keypoints, "flow": pose.flow, "flow_valid": pose.flow_valid,
        "rotations": pose.motion.rotations, "root": pose.motion.root, "latents": clip.latents, "mask": clip.mask,
    }  # fmt: skip
    columns: dict[str, pa.Array] = {"frame": pa.array(np.arange(len(clip), dtype=np.int32))}
    for name, array in arrays.items():
        if array is not None:
            columns[name] = _tensor_column(array, _COLUMN_TYPES[name])
    return pa.table(columns).replace_schema_metadata({_METADATA_KEY: json.dumps(_metadata(clip), sort_keys=True).encode()})


def _metadata(clip: Clip) -> dict[str, Any]:
    """What belongs to the whole clip. Numbers as JSON keep every bit of a float64."""
    motion, shape = clip.pose.motion, clip.pose.shape
    embedding = clip.image_embedding
    return {
        "schema": SCHEMA_VERSION, "performer": clip.performer, "clip": clip.clip, "fps": float(clip.fps), "num_train": int(clip.num_train),
        "focal_px": float(motion.focal_px), "center_px": [float(c) for c in motion.center_px],
        **{name: np.asarray(getattr(shape, name), np.float64).tolist() for name in ("betas", "log_scales", "girths")},
        "image_embedding": None if embedding is None else np.asarray(embedding, np.float32).tolist(), "provenance": dict(clip.provenance),
    }  # fmt: skip


def _tensor_column(array: Shaped[np.ndarray, "N ..."], dtype: type[np.generic]) -> pa.Array:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(array, dtype=dtype))


def _read_column(file: pq.ParquetFile, name: str) -> Shaped[np.ndarray, "N ..."]:
    """One column at a time, so that the peak is one column above the clip itself."""
    parts = [file.read_row_group(group, columns=[name]).column(0).combine_chunks() for group in range(file.num_row_groups)]
    array = np.concatenate([part.to_numpy_ndarray() for part in parts])
    return array.astype(_READ_AS.get(name, array.dtype), copy=False)


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
