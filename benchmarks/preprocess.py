"""Does the Ray Data graph of preprocessing pay? Frames per second against the same functions in one sequential loop, same clips, one run.

Clips: the man of pose2sim from four cameras, as filmed, mirrored, backwards and both, 100 frames of 720 x 1280 each. Each run is a process
of its own with one thread for BLAS and torch, and starts in an empty folder; both ways must make equal shards. Counted is all that follows
the start of Ray and, for the loop, its imports: the graph's time has the start of its actors, imports and all, in it. RSS counts pages
that processes share once for each, PSS once in all. `--full`, about an hour, instead: memory for one clip of a minute and one of ten, 1080p."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import arguments, finish
from dpscale.config.schema import Config
from dpscale.config.sources import Pose2simPerformer
from dpscale.data.layout import RunLayout
from dpscale.data.shards import join_parts, write_part
from dpscale.preprocess.manifest import main_jobs
from dpscale.preprocess.sources import footage_of

_CAMERAS = ("cam01", "cam02", "cam03", "cam04")
_FPS, _NUM_ACTORS = 30, 2
_PSS_EVERY_S = 20
"""Reading it walks every page of every process: each 2 s it cost the graph, which has 15 of them, a tenth of its speed."""


def main() -> None:
    """Measures 1, 4 and 16 clips; with --full, a minute and ten of one clip."""
    given = arguments(__doc__ or "")
    os.environ["OMP_NUM_THREADS"] = "1"  # as in Ray's workers: with more, sums have other last bits
    folder = Path(tempfile.mkdtemp(prefix="dpscale-bench-"))
    try:
        (_long if given.full else _short)(folder, given.json)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _short(folder: Path, path: Path | None) -> None:
    clips = _make_clips(folder / "clips")
    rows = [row for num in (1, 4, 16) for row in _both(folder, clips[:num])]
    speed = {(row["clips"], row["way"]): row["frames_per_s"] for row in rows}
    graph = [row for row in rows if row["way"] == "graph"]
    finish("preprocess", path, {
        "speedup_vs_sequential": speed[16, "graph"] / speed[16, "sequential"],
        "speedup_at_clips": {num: speed[num, "graph"] / speed[num, "sequential"] for num in (1, 4, 16)},
        "frames_per_s": {num: speed[num, "graph"] for num in (1, 4, 16)},
        "peak_rss_gib": max(row["peak_rss_gib"] for row in graph),
        "peak_pss_gib": max(row["peak_pss_gib"] for row in graph),
    }, rows)  # fmt: skip


def _long(folder: Path, path: Path | None) -> None:
    rows = []
    for minutes in (1, 10):
        row = _alone(folder, [_long_clip(folder / f"{minutes}min.mp4", minutes)], "graph")
        rows.append({"minutes": minutes} | {key: value for key, value in row.items() if key != "shards"})
    peaks = {f"{key}_by_minutes": {row["minutes"]: row[key] for row in rows} for key in ("peak_rss_gib", "peak_pss_gib")}
    finish("preprocess_full", path, peaks, rows)


def _both(folder: Path, clips: list[Path]) -> list[dict[str, Any]]:
    """The loop before and after the graph, half of the clips each, so that a machine that changes its pace favours neither."""
    half = (len(clips) + 1) // 2
    before = _alone(folder, clips[:half], "sequential")
    graph = _alone(folder, clips, "graph")
    after = _alone(folder, clips[half:], "sequential") if clips[half:] else None
    loop = before if after is None else _sum(before, after)
    wrong = sorted(name for name, digest in loop["shards"].items() if graph["shards"].get(name) != digest)
    if wrong:
        raise RuntimeError(f"the graph made other shards than the loop: {wrong}")
    return [{key: value for key, value in row.items() if key != "shards"} for row in (loop, graph)]


def _sum(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    frames, seconds = a["frames"] + b["frames"], a["seconds"] + b["seconds"]
    peaks = {key: max(a[key], b[key]) for key in ("peak_rss_gib", "peak_pss_gib")}
    return {**a, "clips": a["clips"] + b["clips"], "frames": frames, "seconds": seconds, "frames_per_s": frames / seconds, **peaks,
            "shards": a["shards"] | b["shards"]}  # fmt: skip


def _alone(folder: Path, clips: list[Path], way: str) -> dict[str, Any]:
    """One run in a new process, so that no memory is left from the one before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, folder, clips, way).result()


def _measured(folder: Path, clips: list[Path], way: str) -> dict[str, Any]:
    config = Config.model_validate({
        "run": {"root": str(folder), "name": "run"},
        "performers": [{"kind": "video", "name": path.stem, "path": str(path)} for path in clips],
        "preprocess": {"size": 128, "fit_steps": 200, "num_actors": _NUM_ACTORS, "max_frames": 18_000},
        "diffusion": {"preset": "tiny"},
    })  # fmt: skip
    layout = RunLayout.of(config)
    shutil.rmtree(layout.root, ignore_errors=True)
    with _memory() as memory:
        seconds = (_graph if way == "graph" else _sequential)(config, layout)
    frames = sum(_num_frames(path) for path in clips)
    return {"clips": len(clips), "frames": frames, "way": way, "seconds": seconds, "frames_per_s": frames / seconds, **memory,
            "shards": _shards(config, layout)}  # fmt: skip


def _shards(config: Config, layout: RunLayout) -> dict[str, str]:
    """Hash of each shard's rows, whatever its provenance says."""
    found = {}
    for performer in config.performers:
        table = pq.read_table(layout.shard(performer.name, "main") / "frames.parquet")
        found[performer.name] = hashlib.sha256(b"".join(b.tobytes() for n in table.column_names for b in _buffers(table[n]))).hexdigest()
    return found


def _buffers(column: pa.ChunkedArray) -> Iterator[np.ndarray]:
    for chunk in column.chunks:
        yield chunk.to_numpy_ndarray() if hasattr(chunk, "to_numpy_ndarray") else chunk.to_numpy(zero_copy_only=False)


def _sequential(config: Config, layout: RunLayout) -> float:
    """The steps of the graph, clip after clip, in this process; the seconds that they took."""
    import torch

    import dpscale.preprocess.latents  # noqa: F401 (what Tools.encoders would import when the first clip comes to it)
    from dpscale.preprocess.clips import Tools, encoded, main_chunks, prepare_person

    torch.set_num_threads(config.ray.torch_threads)
    start = time.monotonic()
    tools = Tools(config, layout)
    for job, performer in zip(main_jobs(config, layout), config.performers, strict=True):
        prepare_person(tools, performer, job.source)
        parts = layout.parts(performer.name, "main", job.key)
        paths = []
        for chunk in main_chunks(tools, performer, job.source, {"key": job.key, "source": job.source}):
            paths.append(parts / f"{chunk.start:08d}.parquet")
            write_part(paths[-1], encoded(tools, chunk), chunk.start)
        join_parts(layout.shard(performer.name, "main"), paths)
    return time.monotonic() - start


def _graph(config: Config, layout: RunLayout) -> float:
    """The same on Ray Data."""
    from dpscale.config.schema import RayConfig
    from jobs.cluster_session import ray_session

    with ray_session(RayConfig()):
        from dpscale.preprocess.on_ray import preprocess  # imports ray, which reads what ray_session sets

        start = time.monotonic()
        failed = [outcome.error for outcome in preprocess(config, layout) if not outcome.ok]
        seconds = time.monotonic() - start
    if failed:
        raise RuntimeError(failed[0])
    return seconds


@contextmanager
def _memory() -> Iterator[dict[str, float]]:
    """Peak of this process and all below it; shared pages count for each of them in RSS, once in PSS."""
    peak = {"peak_rss_gib": 0.0, "peak_pss_gib": 0.0}
    done = threading.Event()

    def watch() -> None:
        for second in count():
            if done.wait(1):
                return
            tree = [psutil.Process(), *psutil.Process().children(recursive=True)]
            peak["peak_rss_gib"] = max(peak["peak_rss_gib"], _total(tree, lambda p: p.memory_info().rss))
            if second % _PSS_EVERY_S == 0:
                peak["peak_pss_gib"] = max(peak["peak_pss_gib"], _total(tree, lambda p: p.memory_full_info().pss))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _total(processes: list[psutil.Process], value: Callable[[psutil.Process], int]) -> float:
    total = 0
    for process in processes:
        try:
            total += value(process)
        except psutil.Error:  # it has just ended
            continue
    return total / 2**30


def _make_clips(folder: Path) -> list[Path]:
    folder.mkdir(parents=True)
    made = []
    for camera in _CAMERAS:
        film = np.stack(list(footage_of(Pose2simPerformer(name="man", camera=camera)).frames(100, longest_side=1280)))
        film = film[:, : film.shape[1] // 2 * 2, : film.shape[2] // 2 * 2]  # H.264 in 4:2:0 has even sides
        for name, frames in {"": film, "-mirrored": film[:, :, ::-1], "-back": film[::-1], "-both": film[::-1, :, ::-1]}.items():
            made.append(folder / f"{camera}{name}.mp4")
            _encode(made[-1], frames)
    return made[::4] + [path for n, path in enumerate(made) if n % 4]


def _long_clip(path: Path, minutes: int) -> Path:
    film = list(footage_of(Pose2simPerformer(name="man")).frames(100))
    _encode(path, islice(cycle([*film, *film[::-1]]), minutes * 60 * _FPS))
    return path


def _encode(path: Path, frames) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(_FPS))
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "20", "preset": "veryfast"}
        for n, frame in enumerate(frames):
            if n == 0:
                stream.height, stream.width = frame.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))


def _num_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(packet.pts is not None for packet in container.demux(video=0))


if __name__ == "__main__":
    main()
