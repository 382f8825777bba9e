"""How near is the fitted body? Its human flow against that of exact meshes, both against the renderer's; its outline against the real man's.

Rendered: held-out performers in training and held-out movements, 256 x 256 px; end-point error in px over visible body pixels, median over
the clip. Real: the man of pose2sim from three cameras, 100 frames; seconds of the fit on one thread (without BlazePose), intersection over
union of the fitted mesh and BlazePose's mask at 256 px, median over frames. `--full`: three times as many performers."""

from __future__ import annotations

import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import arguments, finish
from dpscale.body.parametric import load_body
from dpscale.body.rendered import HELD_OUT_SEED, RenderedClip, person, render_performer
from dpscale.config.schema import PreprocessConfig
from dpscale.config.sources import Pose2simPerformer
from dpscale.data.types import InputError
from dpscale.preprocess.blazepose import BlazePose
from dpscale.preprocess.crop import Crop
from dpscale.preprocess.fitted import FittedBody, fit_person
from dpscale.preprocess.footage import Footage
from dpscale.preprocess.iuv_flow import clip_flow
from dpscale.preprocess.mesh import mesh_frames
from dpscale.preprocess.mesh_arrays import read_mesh_arrays
from dpscale.preprocess.mesh_arrays_flow import mesh_clip_flow
from dpscale.preprocess.person import FoundPerson, find_person
from dpscale.preprocess.silhouettes import coverages
from dpscale.preprocess.sources import footage_of, write_h264
from dpscale.preprocess.surface import pose_of_body

_SIZE, _FRAMES, _FPS = 256, 40, 15.0
_CAMERAS, _MOTIONS = ("cam02", "cam03", "cam04"), ("walk", "dance_a")


def main() -> None:
    """Measures flow on rendered performers, then outlines and seconds on the real man."""
    given = arguments(__doc__ or "")
    torch.set_num_threads(1)
    blazepose, seeds = BlazePose(1), range(HELD_OUT_SEED + 40, HELD_OUT_SEED + (49 if given.full else 43))
    flows = [_flow_row(seed, motion, blazepose) for seed, motion in product(seeds, _MOTIONS)]
    man = [_man_row(camera, blazepose) for camera in _CAMERAS]
    finish("body_fit", given.json, {
        "flow_error_px": {way: _median(row[f"{way}_px"] for row in flows) for way in ("exact_mesh", "exact_iuv", "body_fit")},
        "silhouette_iou": {row["clip"]: row["iou"] for row in man},
        "fit_s_per_100_frames": max(row["fit_s"] * 100 / row["frames"] for row in man),
    }, flows + man)  # fmt: skip


def _flow_row(seed: int, motion: str, blazepose: BlazePose) -> dict[str, Any]:
    truth = render_performer(seed, motion, _FRAMES, _FPS, _SIZE)
    row = {"clip": f"{seed} {motion}", "frames": _FRAMES, "exact_mesh_px": _error(truth, _mesh_flow(truth, seed), truth.pose.flow_valid)}
    by_iuv = clip_flow(truth.pose.iuv)
    row["exact_iuv_px"] = _error(truth, by_iuv.flow, truth.pose.flow_valid & by_iuv.valid)
    try:
        flow, valid = _fitted_flow(truth, blazepose)
    except InputError as error:
        return row | {"body_fit_px": None, "body_fit_pixels": None, "iou": None, "fit_s": None, "problem": str(error).split(": ", 1)[1]}
    both = truth.pose.flow_valid & valid
    share = float(both.sum() / truth.pose.flow_valid.sum())
    return row | {"body_fit_px": _error(truth, flow, both), "body_fit_pixels": share, "iou": None, "fit_s": None, "problem": ""}


def _error(truth: RenderedClip, flow: np.ndarray, where: np.ndarray) -> float:
    return float(np.median(np.linalg.norm((flow - truth.pose.flow)[where], axis=-1)) * _SIZE)


def _mesh_flow(truth: RenderedClip, seed: int) -> np.ndarray:
    """Of the performer's meshes, written and read as a user's would be."""
    body, who, motion = load_body(), person(seed), truth.pose.motion
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "meshes.npz"
        np.savez(
            path, vertices=body.skin(who.shaped, motion.rotations, np.zeros_like(motion.root), who.dressed.vertices), root=motion.root,
            faces=body.faces, focal_px=motion.focal_px, center_px=motion.center_px, image_size=[_SIZE, _SIZE],
        )  # fmt: skip
        return mesh_clip_flow(read_mesh_arrays(path), 0, _FRAMES, Crop(0, 0, _SIZE, _SIZE), _SIZE).flow


def _fitted_flow(truth: RenderedClip, blazepose: BlazePose) -> tuple[np.ndarray, np.ndarray]:
    """Flow of the body that is fitted to the pictures alone, in their own px."""
    settings = PreprocessConfig(size=_SIZE)
    with tempfile.TemporaryDirectory() as folder:
        write_h264(Path(folder) / "clip.mp4", truth.frames, _FPS)
        found = find_person(Footage(Path(folder) / "clip.mp4"), _FRAMES, None, settings, blazepose)
    fitted = fit_person(found, settings)
    pose = pose_of_body(load_body(), fitted.movement.shape, fitted.movement.motion, _SIZE)
    return _back(pose.flow, fitted.crop) * fitted.crop.side / _SIZE, _back(pose.flow_valid, fitted.crop)


def _back(maps: np.ndarray, crop: Crop) -> np.ndarray:
    """What a map of the crop says of each pixel of the picture; zero outside the crop."""
    place = ((np.arange(_SIZE) + 0.5 - np.array([[crop.top], [crop.left]])) * crop.scale).astype(int)
    inside = (place >= 0) & (place < crop.size)
    rows, columns = place.clip(0, crop.size - 1)
    found = maps[:, rows[:, None], columns]
    found[:, ~(inside[0][:, None] & inside[1])] = 0
    return found


def _man_row(camera: str, blazepose: BlazePose) -> dict[str, Any]:
    settings = PreprocessConfig(size=_SIZE)
    found = find_person(footage_of(Pose2simPerformer(name="man", camera=camera)), 100, None, settings, blazepose)
    start = time.monotonic()
    fitted = fit_person(found, settings)
    seconds = time.monotonic() - start
    nothing = {"exact_mesh_px": None, "exact_iuv_px": None, "body_fit_px": None, "body_fit_pixels": None}
    return {"clip": camera, "frames": len(found.track), **nothing, "iou": _overlap(found, fitted), "fit_s": seconds, "problem": ""}


def _overlap(found: FoundPerson, fitted: FittedBody) -> float:
    seen = coverages(found.track.silhouettes, fitted.crop, found.track.scale, _SIZE) > 127
    body, movement = load_body(), fitted.movement
    drawn = np.stack([frame.raster.face >= 0 for frame in mesh_frames(body, body.shaped(movement.shape), movement.motion, _SIZE)])
    return _median((a & b).sum() / (a | b).sum() for a, b in zip(seen, drawn, strict=True) if a.any())


def _median(values) -> float:
    return float(np.median([value for value in values if value is not None]))


if __name__ == "__main__":
    main()
