"""DensePose results in the forms that people have them, as IUV frames, one at a time: a clip is never held whole.

1. A folder of .png files, one a frame, in natural order (frame_2 before frame_10), 8 bits, three channels: I, U, V, or V, U, I as
   OpenCV writes an IUV array (DensePose's own *_IUV.png). Which of the two it is follows from which channel never exceeds 24.
2. One .npz file with the array `iuv`, [N, H, W, 3] or [N, 3, H, W]: uint8, or floating point with I in 0..24 and u, v in 0..1.
3. A folder of .npz files, one a frame, in natural order: one person's part of detectron2's results, laid into the whole picture.
   `labels` [h, w] (0..24), `uv` [2, h, w] in 0..1, `box` [4] (x0, y0, x1, y1 in px of the picture; its corner counts, its size is that
   of `labels`) and `size` [2] (height, width of the picture). Where nobody is seen, h = w = 0.

detectron2's `apply_net.py dump` writes pickled objects of its own classes, which run code when they are read: not accepted. Where
detectron2 is installed, this makes form 3 of a dump with somebody in every frame:

    for n, r in enumerate(torch.load("dump.pkl", weights_only=False)):
        d, b = r["pred_densepose"][0], r["pred_boxes_XYXY"][0]
        numpy.savez(f"{n:06d}.npz", labels=d.labels.cpu(), uv=d.uv.cpu(), box=b.cpu(), size=[HEIGHT, WIDTH])"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dpscale.data.types import InputError
from dpscale.diffusion.conditions import NUM_PARTS
from dpscale.preprocess.decode import check_is_file
from dpscale.preprocess.image_folder import BROKEN_PICTURE, in_natural_order
from dpscale.preprocess.npz_mapped import NpyHeader, npy_header

_FORMS = "give a folder of IUV .png files, one .npz with the array `iuv`, or a folder of .npz files with labels, uv, box and size"
_PROBED = 16
"""Pictures of a folder that tell the order of its channels."""


@dataclass(frozen=True)
class IuvInfo:
    """What IUV files hold."""

    num_frames: int
    height: int
    width: int


def probe_iuv(path: Path) -> IuvInfo:
    """Number and size of the frames. Raises InputError if `path` is none of this module's forms."""
    source = _source(path)
    first = next(source.frames(), None)
    if first is None:
        raise InputError(f"{path}: holds no frame: {_FORMS}")
    return IuvInfo(source.num_frames, *first.shape[:2])


def read_iuv(path: Path, max_frames: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The first `max_frames` frames: part 1..24 (0: background), u and v as 0..255, zero on the background.

    Raises InputError where a frame is unusable or of another size than the first."""
    size = None
    for n, frame in enumerate(islice(_source(path).frames(), max_frames)):
        size = size or frame.shape
        if frame.shape != size:
            raise InputError(f"{path}: frame {n} is {frame.shape[:2]} px high and wide, the first is {size[:2]}: give frames of one size")
        if frame[..., 0].max() > NUM_PARTS:
            raise InputError(f"{path}: frame {n} names part {frame[..., 0].max()}, DensePose has 1..{NUM_PARTS}: give IUV, not colours")
        yield frame * (frame[..., :1] > 0)


@dataclass(frozen=True)
class _Source:
    num_frames: int
    frames: Callable[[], Iterator[UInt8[np.ndarray, "H W 3"]]]


def _source(path: Path) -> _Source:
    if path.is_dir():
        return _folder(path)
    check_is_file(path)
    if path.suffix in (".pkl", ".pt"):
        raise InputError(f"{path}: is a pickle, which runs code when it is read: convert it as dpscale/preprocess/densepose_files.py shows")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: not IUV: {_FORMS}")
    return _array(path)


def _folder(path: Path) -> _Source:
    pictures, crops = _in_order(path, ".png"), _in_order(path, ".npz")
    if bool(pictures) == bool(crops):
        raise InputError(f"{path}: holds {len(pictures)} .png and {len(crops)} .npz files: {_FORMS}")
    if crops:
        return _Source(len(crops), lambda: (_laid_out(crop) for crop in crops))
    order = _channel_order(path, pictures)
    return _Source(len(pictures), lambda: (_picture(picture)[..., order] for picture in pictures))


def _in_order(folder: Path, suffix: str) -> list[Path]:
    return in_natural_order([path for path in folder.iterdir() if path.suffix.lower() == suffix and not path.name.startswith(".")])


def _picture(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    try:
        with Image.open(path) as image:
            picture = np.asarray(image)
    except BROKEN_PICTURE as error:
        raise InputError(f"{path}: not a picture that can be read ({error}): write it again") from error
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise InputError(f"{path}: has mode {picture.dtype} {picture.shape}: IUV is 8 bits with three channels, I, U, V or V, U, I")
    return picture


def _channel_order(folder: Path, pictures: list[Path]) -> slice:
    """Slice that makes I, U, V of the channels. Part numbers never exceed 24; u and v of a body do."""
    probed = pictures[:: max(1, len(pictures) // _PROBED)]
    highest = np.max([_picture(picture).max((0, 1)) for picture in probed], 0)
    if highest[0] > NUM_PARTS and highest[2] > NUM_PARTS:
        raise InputError(f"{folder}: neither the first nor the last channel stays in 0..{NUM_PARTS}: give IUV (I, U, V or V, U, I), not colours")
    return slice(None) if highest[0] <= NUM_PARTS else slice(None, None, -1)


def _array(path: Path) -> _Source:
    with zipfile.ZipFile(path) as archive:
        if "iuv.npy" not in archive.namelist():
            raise InputError(f"{path}: holds {sorted(archive.namelist())} and no array `iuv`: {_FORMS}")
        with archive.open("iuv.npy") as file:
            header = npy_header(f"{path}: array iuv", file)
    if header.order != "C":
        raise InputError(f"{path}: array iuv is in Fortran order: save numpy.ascontiguousarray(iuv)")
    shape = header.shape
    if len(shape) != 4 or 3 not in (shape[3], shape[1]) or not (header.dtype == np.uint8 or header.dtype.kind == "f"):
        raise InputError(f"{path}: array iuv is {header.dtype} {shape}: give uint8 or floating point, [N, H, W, 3] or [N, 3, H, W]")
    return _Source(shape[0], lambda: _array_frames(path, header))


def _array_frames(path: Path, header: NpyHeader) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    length = int(np.prod(header.shape[1:])) * header.dtype.itemsize
    with zipfile.ZipFile(path) as archive, archive.open("iuv.npy") as file:
        npy_header(f"{path}: array iuv", file)
        for n in range(header.shape[0]):
            frame = np.frombuffer(_bytes(path, file, length), header.dtype).reshape(header.shape[1:])
            yield _as_bytes(f"{path}: frame {n}", frame if frame.shape[-1] == 3 else np.moveaxis(frame, 0, -1))


def _bytes(path: Path, file: io.BufferedIOBase, length: int) -> bytes:
    try:
        data = file.read(length)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(f"{path}: array iuv is damaged ({error}): copy or save it again") from error
    if len(data) != length:
        raise InputError(f"{path}: array iuv is cut off: copy or save it again")
    return data


def _as_bytes(name: str, frame: np.ndarray) -> UInt8[np.ndarray, "H W 3"]:
    if frame.dtype == np.uint8:
        return frame
    part, uv = frame[..., :1], frame[..., 1:]
    if not (np.isfinite(frame).all() and (part == np.rint(part)).all() and part.min() >= 0 and part.max() <= NUM_PARTS):
        raise InputError(f"{name}: part numbers are not whole numbers of 0..{NUM_PARTS}: give I, u, v in this order")
    if uv.min() < 0 or uv.max() > 1:
        raise InputError(f"{name}: u and v reach from {uv.min():g} to {uv.max():g}: floating-point u and v lie in 0..1")
    return np.rint(np.concatenate([part, uv * 255], -1)).astype(np.uint8)


def _laid_out(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """One person's crop in the whole picture; what lies beyond the picture is cut off."""
    labels, uv, box, size = _crop_arrays(path)
    height, width = (int(side) for side in size)
    iuv = np.zeros((height, width, 3), np.uint8)
    if labels.size == 0:
        return iuv
    crop = _as_bytes(str(path), np.concatenate([labels[..., None].astype(float), np.moveaxis(uv, 0, -1)], -1))
    left, top = (int(corner) for corner in box[:2])
    x, y = max(left, 0), max(top, 0)
    seen = crop[y - top : max(height - top, 0), x - left : max(width - left, 0)]
    iuv[y : y + seen.shape[0], x : x + seen.shape[1]] = seen
    return iuv


def _crop_arrays(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    names = ("labels", "uv", "box", "size")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            labels, uv, box, size = (arrays[name] for name in names)
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no crop of DensePose ({error}): it needs the arrays {', '.join(names)}") from error
    if not (size.shape == (2,) and labels.ndim == 2 and uv.shape == (2, *labels.shape) and box.shape == (4,) and np.isfinite(box).all()):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in zip(names, (labels, uv, box, size), strict=True))
        raise InputError(f"{path}: has {shapes}: give labels [h, w], uv [2, h, w], box [4] (finite) and size [2]")
    return labels, uv, box, size
