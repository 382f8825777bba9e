"""DensePose part maps drawn as colours, as MagicAnimate's driving videos are: each part one colour of viridis, no u and v.

A video codec mixes colours at every edge, and a mixture of two parts often is the colour of a third. So only pixels inside flat
regions are taken at their colour's word; the rest choose among the parts next to them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageFilter
from scipy.ndimage import distance_transform_edt, maximum_filter
from skimage.measure import label as connected_regions

from dpscale.data.types import InputError
from dpscale.preprocess.decode import read_frames
from dpscale.preprocess.iuv_stand_in import with_stand_in

PALETTE = np.array(
    [
        (68, 1, 84), (71, 16, 99), (72, 31, 112), (71, 44, 122), (68, 57, 131), (64, 70, 136), (59, 81, 139), (54, 93, 141), (49, 104, 142),
        (44, 113, 142), (40, 124, 142), (37, 133, 142), (33, 144, 141), (31, 154, 138), (32, 163, 134), (39, 173, 129), (53, 183, 121),
        (70, 192, 111), (92, 200, 99), (115, 208, 86), (142, 214, 69), (170, 220, 50), (197, 224, 33), (226, 228, 24), (253, 231, 37),
    ],
    np.uint8,
)  # fmt: skip
"""Colour of the background and of parts 1..24: viridis (matplotlib, CC0) at 255 I / 24, as detectron2's visualiser scales it."""

_COLOURS = np.concatenate([PALETTE, np.zeros((1, 3), np.uint8)]).astype(np.float32)
"""The palette, then black, which some tools leave as the background."""
_FAR = 30.0
"""Distance in RGB from every colour of the palette that compression does not explain."""
_MAX_FAR = 0.5
"""Most of the body's pixels that may be so far: the mixed edges of a part map are 0.05 to 0.3 of it, other pictures 0.95 and more."""
_BACKGROUND_NOISE = 8.0
"""Distance in RGB from the background's colour that is still background."""
_MIN_BODY = 0.002
"""Smallest share of the picture that a body covers."""
_MIN_PARTS = 3
_REACH = 3
"""Px from a flat region at which a pixel may belong to it: the width of a codec's mixed edges."""
_MIN_ISLAND = 1e-4
"""Share of the picture below which a region of one label is a codec's speck."""
_PROBED_PX = 256
"""Pixels a side at which a frame is looked at, single ones: means would mix colours."""
_PROBED, _SEARCHED = 8, 300
"""Frames with a body that are looked at to tell whether a video is a part map, and frames among which they are looked for."""


def is_densepose_colour(frames: UInt8[np.ndarray, "N H W 3"]) -> bool:
    """Whether the frames are a part map in these colours. Frames without anybody say nothing; if all are, the answer is no."""
    return _objection([frame for frame in frames if _body_share(frame) >= _MIN_BODY]) is None


def read_densepose_colour(path: Path, max_frames: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """IUV of a part-colour video, one frame at a time, at the video's size; u and v are stand-ins (see iuv_stand_in).

    Raises InputError if the video is no such map."""
    peopled = (frame for frame in read_frames(path, min(max_frames, _SEARCHED)) if _body_share(frame) >= _MIN_BODY)
    objection = _objection(list(islice(peopled, _PROBED)))
    if objection:
        raise InputError(
            f"{path}: is no DensePose part map in viridis colours: {objection}. Draw one with detectron2's dp_segm, cv2.COLORMAP_VIRIDIS "
            "and alpha 1 on black, or give IUV files or the video of the person itself"
        )
    for picture in read_frames(path, max_frames):
        yield with_stand_in(part_map(picture))


def part_map(picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W"]:
    """Part 1..24 of each pixel, 0 on the background, of a picture in these colours."""
    parts, body = np.zeros(picture.shape[:2], np.uint8), _off_background(picture)
    if body.any():
        window = _around(body, 2 * _REACH)
        parts[window] = _parts(picture[window], _MIN_ISLAND * body.size)
    return parts


def _objection(frames: list[UInt8[np.ndarray, "H W 3"]]) -> str | None:
    """Why the frames, which show more than background, are no part map; None if they are one."""
    if not frames:
        return "it shows nobody"
    step = max(1, max(frames[0].shape) // _PROBED_PX)
    distance, label = zip(*(_nearest(frame[::step, ::step]) for frame in frames), strict=True)
    body = np.stack(label) > 0
    near = body & (np.stack(distance) <= _FAR)
    far = 1 - near.sum() / max(body.sum(), 1)
    if far > _MAX_FAR:
        return f"{far:.0%} of what it shows has none of the {len(PALETTE)} colours"
    if len(np.unique(np.stack(label)[near])) < _MIN_PARTS:
        return f"it shows fewer than {_MIN_PARTS} parts"
    return None


def _body_share(picture: UInt8[np.ndarray, "H W 3"]) -> float:
    return float(_off_background(picture).mean())


def _off_background(picture: UInt8[np.ndarray, "H W 3"]) -> Bool[np.ndarray, "H W"]:
    return (_squared_distance(picture, _COLOURS[[0, -1]]) > _BACKGROUND_NOISE**2).all(-1)


def _squared_distance(picture: UInt8[np.ndarray, "h w 3"], colours: Float[np.ndarray, "K 3"]) -> Float[np.ndarray, "h w K"]:
    pixels = picture.astype(np.float32)
    apart = np.square(pixels).sum(-1, keepdims=True) - 2 * pixels @ colours.T + np.square(colours).sum(-1)
    return apart.clip(0)


def _nearest(picture: UInt8[np.ndarray, "h w 3"]) -> tuple[Float[np.ndarray, "h w"], UInt8[np.ndarray, "h w"]]:
    """Distance to the nearest colour in RGB, and its part."""
    squared = _squared_distance(picture, _COLOURS)
    return np.sqrt(squared.min(-1)), (squared.argmin(-1) % len(PALETTE)).astype(np.uint8)


def _around(body: Bool[np.ndarray, "H W"], margin: int) -> tuple[slice, slice]:
    """The box of the body and `margin` px more."""
    return tuple(
        slice(max(int(at.min()) - margin, 0), int(at.max()) + margin + 1) for at in (np.flatnonzero(body.any(1)), np.flatnonzero(body.any(0)))
    )


def _parts(picture: UInt8[np.ndarray, "h w 3"], min_island_px: float) -> UInt8[np.ndarray, "h w"]:
    smooth = np.asarray(Image.fromarray(np.ascontiguousarray(picture)).filter(ImageFilter.MedianFilter(3)))
    label = _nearest(smooth)[1]
    flat = _large(label, _in_flat_region(label), min_island_px)
    if not flat.any():
        return label
    rows, columns = distance_transform_edt(~flat, return_distances=False, return_indices=True)
    filled = label[rows, columns]
    present = np.unique(filled)
    reach = np.stack([maximum_filter((filled == part) & flat, 2 * _REACH + 1) | (filled == part) for part in present], -1)
    price = np.where(reach, _squared_distance(picture, _COLOURS[:-1])[..., present], np.inf)
    return np.where(flat, label, present[price.argmin(-1)])


def _in_flat_region(label: UInt8[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels that some 3 x 3 pixels of one label hold: morphological opening of all labels at once."""
    height, width = label.shape
    around = np.pad(label, 1, mode="edge")
    shifts = [np.s_[y : y + height, x : x + width] for y, x in np.ndindex(3, 3)]
    core = np.logical_and.reduce([around[shift] == label for shift in shifts])
    held = np.pad(np.where(core, label.astype(int), -1), 1, constant_values=-1)
    return np.logical_or.reduce([held[shift] == label for shift in shifts])


def _large(label: UInt8[np.ndarray, "h w"], chosen: Bool[np.ndarray, "h w"], min_px: float) -> Bool[np.ndarray, "h w"]:
    """The chosen pixels without those whose region of one label is small."""
    region = connected_regions(np.where(chosen, label.astype(int) + 1, 0), connectivity=2)
    return chosen & (np.bincount(region.ravel())[region] >= min_px)
