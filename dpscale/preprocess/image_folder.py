"""Reads a clip that lies as a folder of numbered pictures, with the interface of `decode`: one frame at a time, as a viewer shows it.

Pictures (.png, .jpg) are named alike up to their numbers and follow each other by these (frame_2 before frame_10). A folder says
nothing about time: the caller gives its frame rate. Hidden files, sub-folders and files of other kinds are passed over."""

from __future__ import annotations

import hashlib
import logging
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count, groupby, islice, pairwise, takewhile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from dpscale.data.types import InputError
from dpscale.preprocess.decode import MIN_FRAMES, VideoInfo

log = logging.getLogger(__name__)

DEFAULT_FPS = 30.0
"""Frame rate of the TikTok dataset's folders (Jafarian and Park, CVPR 2021) and of most phones."""
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")

BROKEN_PICTURE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What PIL raises for files that are damaged, or unpack to too much: its readers of chunks and of EXIF each have their own way."""

_BEHIND_TRANSPARENCY = 128


@dataclass(frozen=True)
class Pictures:
    """The pictures of a folder in their order."""

    files: tuple[Path, ...]
    num_missing: int = 0
    """Pictures that the numbers leave out."""
    first_gap: Path | None = None
    """The picture after which the first ones are missing."""

    def gaps(self) -> str:
        """What is missing, in words; empty where nothing is."""
        return f"{self.num_missing} missing pictures closed up, the first after {self.first_gap.name}" if self.first_gap else ""


def probe_folder(path: Path, fps: float = DEFAULT_FPS, resample_to: float | None = None) -> VideoInfo:
    """Size of the pictures, and the frame rate at which `read_folder` with the same rates (frames/s) gives frames.

    Raises InputError if `path` is no folder of at least MIN_FRAMES numbered pictures, the first of which can be read."""
    found = pictures_in(path)
    resampled = f"resampled to {resample_to:g} frames/s" if resample_to not in (None, fps) else ""
    width, height = _opened(found.files[0]).size
    return VideoInfo(height, width, resample_to or fps, tuple(change for change in (found.gaps(), resampled) if change))


def read_folder(
    path: Path, max_frames: int, longest_side: int | None = None, fps: float = DEFAULT_FPS, resample_to: float | None = None
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The first `max_frames` frames as RGB, upright, one at a time.

    `longest_side` shrinks larger pictures to that many px (area averaging). `fps` is the rate of the folder; `resample_to` shows, at
    another rate, the picture that is on at each time. Missing numbers are closed up, with a warning. Raises InputError that names the
    first picture that cannot be read or has another size than the others."""
    found = pictures_in(path)
    if found.num_missing:
        log.warning("%s: %s", path, found.gaps())
    size = None
    for n, repeats in groupby(islice(_shown(len(found.files), fps, resample_to), max_frames)):
        picture = _opened(found.files[n])
        size = size or picture.size
        if picture.size != size:
            raise InputError(
                f"{found.files[n]}: is {picture.width}x{picture.height} px, {found.files[0].name} is {size[0]}x{size[1]}: give pictures of one size"
            )
        picture = _shrunk(picture, longest_side)
        yield from (np.array(picture) for _ in repeats)


def pictures_in(folder: Path) -> Pictures:
    """The folder's pictures; none is opened. Raises InputError if they are too few or their names give no order."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder: give a folder of numbered pictures ({', '.join(PICTURE_SUFFIXES)})")
    files = in_natural_order([file for file in folder.iterdir() if _is_picture(file)])
    if len(files) < MIN_FRAMES:
        found = f"number of pictures ({', '.join(PICTURE_SUFFIXES)}) is {len(files)}, at least {MIN_FRAMES} are needed"
        raise InputError(f"{folder}: {found}: give a video file, or a folder of numbered pictures")
    return _with_gaps(files, _numbers(files))


def in_natural_order(paths: Sequence[Path]) -> list[Path]:
    """Sorted by name, numbers in names by their value."""
    return sorted(paths, key=lambda path: (_parts(path.name), path.name))


def folder_digest(folder: Path) -> str:
    """Hash of the names and the content of the folder's pictures (SHA-256). Raises InputError."""
    digest = hashlib.sha256()
    for file in pictures_in(folder).files:
        digest.update(f"{file.name}\0".encode(errors="surrogateescape"))
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in PICTURE_SUFFIXES and not file.name.startswith(".") and not file.is_dir()


def _parts(name: str) -> list[str | int]:
    """Words and numbers by turns: cam1_007 gives "cam", 1, "_", 7, ""."""
    return [int(part) if n % 2 else part for n, part in enumerate(re.split(r"([0-9]+)", name))]


def _numbers(files: Sequence[Path]) -> list[tuple[int, ...]]:
    """The numbers in each name. Raises InputError unless the names are alike up to their numbers, and no two have the same."""
    words, before = _parts(files[0].stem)[::2], dict[tuple[int, ...], Path]()
    for file in files:
        own = _parts(file.stem)
        if own[::2] != words or len(own) < 2:
            raise InputError(f"{file}: not numbered as {files[0].name} is: name the pictures alike up to their numbers, and leave no others there")
        twin = before.setdefault(tuple(own[1::2]), file)
        if twin is not file:
            raise InputError(f"{file}: has the same number as {twin.name}: keep one picture a frame")
    return list(before)


def _with_gaps(files: Sequence[Path], numbers: list[tuple[int, ...]]) -> Pictures:
    """Gaps are known where a single number counts; the usual step counts as one, because some tools write every other frame."""
    counting = [column for column in zip(*numbers, strict=True) if len(set(column)) > 1]
    if len(counting) > 1:
        return Pictures(tuple(files))
    steps = [after - number for number, after in pairwise(counting[0])]
    usual = sorted(steps)[len(steps) // 2]
    missing = [max(0, step // usual - 1) for step in steps]
    first = next((file for file, gap in zip(files, missing, strict=False) if gap), None)
    return Pictures(tuple(files), sum(missing), first)


def _shown(num_pictures: int, fps: float, resample_to: float | None) -> Iterator[int]:
    """Number of the picture in each frame: the one that is on at the frame's time."""
    ratio = Fraction(fps).limit_denominator(1001) / Fraction(resample_to or fps).limit_denominator(1001)
    return takewhile(lambda n: n < num_pictures, (int(k * ratio) for k in count()))


def _opened(file: Path) -> Image.Image:
    """The picture upright, in RGB. Raises InputError."""
    try:
        with Image.open(file) as image:
            image.load()
            return _rgb(ImageOps.exif_transpose(image))
    except BROKEN_PICTURE as error:
        raise InputError(f"{file}: not a picture that can be read ({error}): write it again") from error


def _rgb(image: Image.Image) -> Image.Image:
    """8 bits, in colour; what is transparent stands before mid-grey, where neither dark nor light people vanish."""
    if image.mode.startswith("I"):
        return Image.fromarray(np.rint(np.asarray(image).clip(0, 65535) / 257).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    behind = Image.new("RGBA", image.size, (_BEHIND_TRANSPARENCY,) * 3)
    return Image.alpha_composite(behind, image.convert("RGBA")).convert("RGB")


def _shrunk(image: Image.Image, longest_side: int | None) -> Image.Image:
    scale = min(1.0, longest_side / max(image.size)) if longest_side else 1.0
    if scale == 1.0:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX)
