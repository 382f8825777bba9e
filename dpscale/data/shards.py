"""Parquet form of a clip: one row a frame, fixed-shape tensor columns, readable with plain pyarrow.

    table = pyarrow.parquet.read_table("<run>/shards/performer=NAME/clip=main/frames.parquet")
    iuv = table["iuv"].combine_chunks().to_numpy_ndarray()      # uint8 [N, H, W, 3]

Pictures, masks, IUV, keypoints and motion are kept to the bit; flow and latents are rounded to float16."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int, Shaped

from dpscale.data.checkpoint import commit_folder, marker_of, write_atomically
from dpscale.data.types import BodyMotion, BodyShape, Clip, Pose

SCHEMA_VERSION = 2
FILE_NAME = "frames.parquet"
_METADATA_KEY = b"dpscale"
_ROW_GROUP_BYTES = 4 * 2**20
"""What is read for one frame: small, so that random clips are cheap."""

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
    _commit(folder, clip.provenance, len(clip), iter([_table(clip, 0)]))


def write_part(path: Path, part: Clip, start: int) -> None:
    """Writes consecutive frames of a clip, from number `start` on, atomically; the part with frame 0 has the image embedding."""
    write_atomically(path, lambda target: _write_tables(target, iter([_table(part, start)])))


def join_parts(folder: Path, parts: Sequence[Path]) -> None:
    """Writes parts, in order of their frames, as one shard. One row group is in memory at a time."""
    files = [pq.ParquetFile(path) for path in parts]
    num_frames = sum(file.metadata.num_rows for file in files)
    _commit(folder, _meta(files[0])["provenance"], num_frames, (file.read_row_group(g) for file in files for g in range(file.num_row_groups)))


class ShardReader:
    """Random access to a finished shard: only the row groups of the frames asked for are read, from the mapped file. Raises ShardError."""

    def __init__(self, folder: Path) -> None:
        if not is_complete(folder):
            raise ShardError(f"{folder}: holds no finished shard: run `dpscale preprocess` with the same settings")
        self._take(pq.ParquetFile(folder / FILE_NAME, memory_map=True), str(folder))

    @classmethod
    def of_file(cls, file: pq.ParquetFile, where: str) -> ShardReader:
        """Of a finished shard that is open already, wherever it is (see remote.py); `where` names it in errors."""
        reader = cls.__new__(cls)
        reader._take(file, where)
        return reader

    def _take(self, file: pq.ParquetFile, where: str) -> None:
        self._file = file
        self._meta = _meta(file)
        if self._meta.get("schema") != SCHEMA_VERSION:
            found = self._meta.get("schema")
            raise ShardError(f"{where}: has schema {found}, this version reads {SCHEMA_VERSION}: delete the folder and preprocess again")
        groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(groups)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def fps(self) -> float:
        return self._meta["fps"]

    @property
    def num_train(self) -> int:
        """Frames 0 .. num_train-1 train."""
        return self._meta["num_train"]

    @property
    def shape(self) -> BodyShape:
        return BodyShape(*(np.array(self._meta[name], np.float64) for name in ("betas", "log_scales", "girths")))

    @property
    def camera(self) -> tuple[float, tuple[float, float]]:
        """Focal length and principal point, in px of the crop."""
        center = self._meta["center_px"]
        return self._meta["focal_px"], (center[0], center[1])

    @property
    def motion(self) -> BodyMotion:
        """Of all frames; pictures stay on the disk."""
        return BodyMotion(self.column("rotations"), self.column("root"), *self.camera)

    @property
    def columns(self) -> list[str]:
        """Arrays that the shard has."""
        return [name for name in self._file.schema_arrow.names if name in _COLUMN_TYPES]

    def column(self, name: str, frames: Int[np.ndarray, " F"] | None = None) -> Shaped[np.ndarray, "F ..."]:
        """One column, of all frames or of those asked for, in their order; flow and latents as float32."""
        wanted = np.arange(len(self)) if frames is None else np.asarray(frames)
        group_of = np.searchsorted(self._starts, wanted, "right") - 1
        out: Shaped[np.ndarray, "F ..."] | None = None
        for group in np.unique(group_of):
            rows = self._file.read_row_group(int(group), columns=[name]).column(0).combine_chunks().to_numpy_ndarray()
            if out is None:
                out = np.empty((len(wanted), *rows.shape[1:]), _READ_AS.get(name, rows.dtype))
            out[group_of == group] = rows[wanted[group_of == group] - self._starts[group]]
        assert out is not None, "a shard has at least one frame"
        return out

    def clip(self, frames: Int[np.ndarray, " F"] | None = None) -> Clip:
        """The whole clip, or some of its frames (`num_train` and the flow keep their meaning in the whole clip)."""
        meta = self._meta
        column = {name: self.column(name, frames) for name in self.columns}
        motion = BodyMotion(column["rotations"], column["root"], *self.camera)
        embedding = meta["image_embedding"]
        return Clip(
            performer=meta["performer"], clip=meta["clip"], fps=meta["fps"], num_train=meta["num_train"],
            pose=Pose(column["keypoints"], column["iuv"], column["flow"], column["flow_valid"], self.shape, motion),
            frames=column.get("frames"), latents=column.get("latents"),
            image_embedding=None if embedding is None else np.array(embedding, np.float32), mask=column.get("mask"), provenance=meta["provenance"],
        )  # fmt: skip


def read_clip(folder: Path) -> Clip:
    """All of a shard. Raises ShardError."""
    return ShardReader(folder).clip()


def is_complete(folder: Path) -> bool:
    """Whether the folder holds a finished shard."""
    return marker_of(folder) is not None


def _commit(folder: Path, provenance: dict[str, str], num_frames: int, tables: Iterator[pa.Table]) -> None:
    marker: dict[str, Any] = {"schema": SCHEMA_VERSION, "num_frames": num_frames, **provenance}

    def write(target: Path) -> None:
        _write_tables(target / FILE_NAME, tables)
        marker["sha256"] = _file_hash(target / FILE_NAME)

    commit_folder(folder, write, marker)


def _write_tables(path: Path, tables: Iterator[pa.Table]) -> None:
    first = next(tables)
    with pq.ParquetWriter(path, first.schema, compression="zstd", use_dictionary=False, write_statistics=False) as writer:
        for table in chain([first], tables):
            writer.write_table(table, row_group_size=_group_rows(table))


def _group_rows(table: pa.Table) -> int:
    return max(1, min(len(table), _ROW_GROUP_BYTES // max(1, table.nbytes // len(table))))


def _meta(file: pq.ParquetFile) -> dict[str, Any]:
    return json.loads((file.schema_arrow.metadata or {}).get(_METADATA_KEY, b"{}"))


def _table(clip: Clip, start: int) -> pa.Table:
    """Rows of consecutive frames, from number `start` on."""
    pose = clip.pose
    arrays = {
        "frames": clip.frames, "iuv": pose.iuv, "keypoints": pose.keypoints, "flow": pose.flow, "flow_valid": pose.flow_valid,
        "rotations": pose.motion.rotations, "root": pose.motion.root, "latents": clip.latents, "mask": clip.mask,
    }  # fmt: skip
    columns: dict[str, pa.Array] = {"frame": pa.array(np.arange(start, start + len(clip), dtype=np.int32))}
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


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
