"""Meshes of a clip that the user brings: one .npz of vertex arrays of constant topology (METHOD 5), from any SMPL-family estimator.

docs/mesh_arrays.md shows how to make one of what PyMAF-X, 4D-Humans, WHAM and GVHMR write. N frames, V vertices, F faces, K betas:

    vertices         float [N, V, 3]     metres, camera axes: x right, y down, z forward
    faces            int [F, 3]          corners of each triangle, from 0; either winding
    image_size       int [2]             height, width in px of the pictures that the cameras below are for: the video's
    root             float [N, 3]        added to the vertices, metres (optional)
    vertices_shaped  float [N, V, 3]     (pose_n, shape_ref, camera_n): used instead of `vertices` (optional)
    betas            float [K] or [N, K] kept to tell whether the shape changes from frame to frame (optional)

and a camera, as one of

    focal_px         [] or [N]           focal length in px of the picture
    center_px        [2] or [N, 2]       principal point, px (x, y), pixel centres at .5 (optional: the middle of the picture)

    cameras          float [N, 3]        s, tx, ty of the HMR family: a point (X, Y, Z) lies at s (X + tx), s (Y + ty) in a square box of -1..1
    boxes            float [N, 3]        that box: centre x, y and side in px of the picture (optional: the picture padded to a square)
    focal_px         [] or [N]           (optional: 5000 / 256 of the picture's longer side, as 4D-Humans takes it)

`cameras` become the translation (tx, ty, 2 focal / (s side)), moved to the box, so they exclude `root`. Every frame holds the mesh of the
same frame of the clip, and of no other: 3D-aware human flow leads from each to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from dpscale.body.camera import project
from dpscale.data.types import InputError
from dpscale.preprocess.npz_mapped import mapped_npz

_FORMS = {
    "vertices": ("N V 3",), "faces": ("F 3",), "image_size": ("2",), "root": ("N 3",), "vertices_shaped": ("N V 3",),
    "betas": ("K", "N K"), "focal_px": ("", "N"), "center_px": ("2", "N 2"), "cameras": ("N 3",), "boxes": ("N 3",),
}  # fmt: skip
"""Allowed shapes of each array, in the order in which letters get their values."""
_REQUIRED = ("vertices", "faces", "image_size")
_WHOLE = ("faces", "image_size")
_POSITIVE = {"image_size": slice(None), "focal_px": slice(None), "cameras": slice(0, 1), "boxes": slice(2, 3)}
"""Which of the array's last axis."""
_FOCAL_PER_SIDE = 5000 / 256
_BODY_M = (0.3, 4.0)
"""Longest extent of a person, stretched or crouching."""
_LEAST_PX = 4
_BETAS_DRIFT = 0.05
"""Standard deviations of shape; smaller changes move no vertex by more than a millimetre or so."""


@dataclass(frozen=True)
class PosedMesh:
    """One frame's mesh in front of its camera."""

    vertices: Float[np.ndarray, "V 3"]
    """Metres, camera axes."""
    focal_px: float
    center_px: tuple[float, float]
    """Focal length and principal point (x, y) in px of the picture."""


@dataclass(frozen=True)
class MeshSequence:
    """The meshes of a clip of N frames; vertices stay on disk until their frame is asked for."""

    path: Path
    vertices: Float[np.ndarray, "N V 3"]
    """Without `root`."""
    root: Float[np.ndarray, "N 3"]
    faces: Int[np.ndarray, "F 3"]
    """Outward: counter-clockwise seen from outside."""
    focal_px: Float[np.ndarray, " N"]
    center_px: Float[np.ndarray, "N 2"]
    image_size: tuple[int, int]
    """Height, width of the picture in px."""
    betas: Float[np.ndarray, "N K"] | None
    transferred: bool
    """The vertices have the reference performer's shape (`vertices_shaped`)."""

    def __len__(self) -> int:
        return len(self.vertices)

    def frame(self, n: int) -> PosedMesh:
        """Frame n, 0 .. N-1."""
        vertices = self.vertices[n].astype(np.float64) + self.root[n]
        return PosedMesh(vertices, float(self.focal_px[n]), (float(self.center_px[n, 0]), float(self.center_px[n, 1])))

    @property
    def note(self) -> str:
        """What the user should know about the shape; mostly nothing."""
        if self.transferred or self.betas is None:
            return ""
        drift = float(np.ptp(self.betas, 0).max())
        if drift <= _BETAS_DRIFT:
            return ""
        return f"{self.path}: betas change by up to {drift:.2f} within the clip, and so does the flow: give vertices_shaped (docs/mesh_arrays.md)"


def read_mesh_arrays(path: Path) -> MeshSequence:
    """Checks every frame, one at a time in memory. Raises InputError naming file, array and frames, and what to do."""
    arrays = mapped_npz(path)
    _check_arrays(path, arrays)
    num_frames = len(arrays["vertices"])
    height, width = (int(side) for side in arrays["image_size"])
    focal = np.broadcast_to(arrays.get("focal_px", np.array(_FOCAL_PER_SIDE * max(height, width))).astype(float), num_frames)
    center = np.broadcast_to(arrays.get("center_px", np.array([width / 2, height / 2])).astype(float), (num_frames, 2))
    root = _translations(arrays, focal, center) if "cameras" in arrays else arrays.get("root", np.zeros((num_frames, 3))).astype(float)
    transferred, betas = "vertices_shaped" in arrays, arrays.get("betas")
    vertices = arrays["vertices_shaped" if transferred else "vertices"]
    faces = _outward(vertices[0].astype(float), arrays["faces"].astype(np.int64))
    per_frame = None if betas is None else np.broadcast_to(betas.astype(float), (num_frames, betas.shape[-1]))
    sequence = MeshSequence(path, vertices, root, faces, focal, center, (height, width), per_frame, transferred)
    _check_frames(sequence, "vertices_shaped" if transferred else "vertices")
    return sequence


def check_matches_video(sequence: MeshSequence, video: Path, num_frames: int, height: int, width: int, max_frames: int) -> None:
    """Raises InputError unless the meshes are those of a clip of `num_frames` frames, perhaps cut at `max_frames`."""
    if sequence.image_size != (height, width):
        meshes = "x".join(str(side) for side in sequence.image_size[::-1])
        raise InputError(
            f"{sequence.path}: image_size is {meshes} px, {video} is {width}x{height}: estimate on the full pictures, or scale image_size, "
            "focal_px, center_px and boxes alike"
        )
    if min(len(sequence), max_frames) != num_frames:
        raise InputError(f"{sequence.path}: has {len(sequence)} frames, the clip of {video} {num_frames}: give one mesh for every frame of the clip")


def _translations(arrays: Mapping[str, np.ndarray], focal: Float[np.ndarray, " N"], center: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 3"]:
    """Weak-perspective cameras of boxes -> translations in front of the picture's pinhole camera."""
    height, width = arrays["image_size"]
    whole = np.array([width / 2, height / 2, max(height, width)])
    s, tx, ty = arrays["cameras"].astype(float).T
    x, y, side = np.broadcast_to(arrays.get("boxes", whole).astype(float), (len(focal), 3)).T
    px_per_m = s * side / 2
    return np.stack([tx + (x - center[:, 0]) / px_per_m, ty + (y - center[:, 1]) / px_per_m, focal / px_per_m], 1)


def _outward(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> Int[np.ndarray, "F 3"]:
    """Faces turned, all alike, so that the body's volume is positive: holes in it hardly matter."""
    a, b, c = np.moveaxis((vertices - vertices.mean(0))[faces], 1, 0)
    return faces if np.einsum("fi,fi->", a, np.cross(b, c)) >= 0 else faces[:, ::-1].copy()


# ------------------------------------------------------------------------------------------ checks


def _check_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Names, kinds, shapes and values of everything but the vertices, which are checked frame by frame."""
    if unknown := sorted(set(arrays) - set(_FORMS)):
        raise InputError(f"{path}: unknown arrays {', '.join(unknown)}: leave them out or correct the name; known are {', '.join(_FORMS)}")
    if missing := [name for name in _REQUIRED if name not in arrays]:
        raise InputError(f"{path}: has no {', '.join(missing)}: add them (docs/mesh_arrays.md shows how)")
    _check_camera(path, arrays)
    sizes: dict[str, int] = {}
    for name in (name for name in _FORMS if name in arrays):
        _check_form(path, name, arrays[name], sizes)
    for name in sorted(set(arrays) - {"vertices", "vertices_shaped"}):
        _check_values(path, name, arrays[name])
    if arrays["faces"].min() < 0 or arrays["faces"].max() >= sizes["V"]:
        low, high = arrays["faces"].min(), arrays["faces"].max()
        raise InputError(f"{path}: faces name vertices {low}..{high}, there are 0..{sizes['V'] - 1}: give the faces of this mesh, counted from 0")


def _check_camera(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    if "focal_px" not in arrays and "cameras" not in arrays:
        raise InputError(f"{path}: has no camera: add focal_px, or cameras [N, 3] (s, tx, ty)")
    if "cameras" in arrays and "root" in arrays:
        raise InputError(f"{path}: has cameras and root, which say the same: give focal_px and root, or cameras and vertices about the origin")
    if "boxes" in arrays and "cameras" not in arrays:
        raise InputError(f"{path}: has boxes without cameras (s, tx, ty): add cameras or leave boxes out")


def _check_form(path: Path, name: str, array: np.ndarray, sizes: dict[str, int]) -> None:
    """Raises unless the array has one of its shapes; letters met for the first time get their values in `sizes`."""
    kinds, wanted = ("iu", "whole numbers") if name in _WHOLE else ("f", "floats") if name.startswith("vertices") else ("fiu", "numbers")
    forms = [form.split() for form in _FORMS[name]]
    fitting = [form for form in forms if _fits(form, array.shape, sizes)]
    if not fitting or array.size == 0 or array.dtype.kind not in kinds:
        known = ", ".join(f"{letter} = {sizes[letter]}" for letter in sorted({part for form in forms for part in form} & set(sizes)))
        shapes = " or ".join(f"[{', '.join(form)}]" for form in forms)
        raise InputError(f"{path}: {name} is {array.dtype} {list(array.shape)}: give {wanted} {shapes}{f' with {known}' if known else ''}")
    sizes.update({letter: length for letter, length in zip(fitting[0], array.shape, strict=True) if letter.isalpha()})


def _fits(form: list[str], shape: tuple[int, ...], sizes: Mapping[str, int]) -> bool:
    if len(form) != len(shape):
        return False
    return all(length == (int(part) if part.isdigit() else sizes.get(part, length)) for part, length in zip(form, shape, strict=True))


def _check_values(path: Path, name: str, array: np.ndarray) -> None:
    bad = ~np.isfinite(array)
    if bad.any():
        per_frame = _FORMS[name][-1].split()
        framed = per_frame[0] == "N" and array.ndim == len(per_frame)
        where = f" in frames {frame_ranges(np.flatnonzero(bad.reshape(len(array), -1).any(1)))}" if framed else ""
        raise InputError(f"{path}: {name} holds NaN or infinity{where}: fill these frames (docs/mesh_arrays.md shows how)")
    if name in _POSITIVE and (np.atleast_1d(array)[..., _POSITIVE[name]] <= 0).any():
        what = {"cameras": "scale s", "boxes": "side"}.get(name, "value")
        raise InputError(f"{path}: {name} has a {what} that is not positive: check the order of its columns")


def _check_frames(sequence: MeshSequence, name: str) -> None:
    faults: dict[str, list[int]] = {}
    for n in range(len(sequence)):
        if fault := _fault(sequence.frame(n)):
            faults.setdefault(fault, []).append(n)
    for fault, frames in faults.items():
        raise InputError(f"{sequence.path}: {name} of frames {frame_ranges(frames)} {fault}")


def _fault(mesh: PosedMesh) -> str | None:
    """What is wrong with a frame's mesh, and the remedy."""
    if not np.isfinite(mesh.vertices).all():
        return "hold NaN or infinity: fill these frames (docs/mesh_arrays.md shows how)"
    if not _BODY_M[0] <= np.ptp(mesh.vertices, 0).max() <= _BODY_M[1]:
        return f"are not {_BODY_M[0]:g} to {_BODY_M[1]:g} m long: give metres, one person, and no frame without one"
    if mesh.vertices[:, 2].min() <= 0:
        return "lie behind the camera: give camera axes (z forward) and the translation, as root or in the vertices"
    points, _ = project(mesh.vertices, mesh.focal_px, mesh.center_px)
    if np.ptp(points, 0).max() < _LEAST_PX:
        return f"are less than {_LEAST_PX} px long in the picture: check focal_px, or the cameras' s and the boxes' side"
    return None


def frame_ranges(frames: list[int] | Int[np.ndarray, " M"]) -> str:
    """[3, 7, 8, 9] -> '3, 7-9'."""
    runs = np.split(np.asarray(frames), np.flatnonzero(np.diff(frames) != 1) + 1)
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
