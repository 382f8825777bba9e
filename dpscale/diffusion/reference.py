"""The performer's own frames carried into a new pose along the body's surface: what `tiny` is told about looks (ours).

Two pixels with equal (part, u, v) show the same point of the body (METHOD 5, the second estimator of the human flow), so known
frames can be warped to any driving pose. The denoiser then only mends what the warp gets wrong, instead of remembering a person."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from scipy.ndimage import binary_dilation, distance_transform_edt
from scipy.spatial import cKDTree
from torch import Tensor

from dpscale.data.types import Clip, keypoint_distance

NUM_SOURCES = 3
"""Known frames that one new frame is drawn from: those with the nearest poses."""

_BAND = 1.0 / 128
"""Width of the band around the body that moves along with it (hair, clothes, a body fitted too thin), over the picture's side."""
_CLEAR = 3 / 128
"""Distance from the person, over the picture's side, at which a pixel is taken for background."""
_MOVING_CAMERA = 12.0
"""Standard deviation over time, in levels, that most of a still background stays below."""
_BLENDED = 6
"""Surface points that make one colour: weighed by their nearness, so that a coarse source leaves no steps."""
_EXACT = 0.2 / 128
"""Distance on the surface, over the picture's side, below which points count as the same."""
_CHART = 25 / 128
"""Side of a part's chart over the picture's side: how far apart u = 0 and u = 255 are on average."""


@dataclass(frozen=True)
class KnownFrames:
    """K frames of a performer before a static camera, in whose pixels looks are found."""

    frames: UInt8[np.ndarray, "K H W 3"]
    iuv: UInt8[np.ndarray, "K H W 3"]
    keypoints: Float[np.ndarray, "K 18 3"]
    mask: UInt8[np.ndarray, "K H W"] | None = None
    """How much of each pixel shows the person, 0..255; none: all of what the IUV covers, and nothing else."""

    def __len__(self) -> int:
        return len(self.frames)

    @cached_property
    def person(self) -> Bool[np.ndarray, "K H W"]:
        """Pixels that show the person for sure: only they lend colours."""
        body = self.iuv[..., 0] > 0
        return body if self.mask is None else body & (self.mask >= 128)

    @cached_property
    def coverage(self) -> Float[np.ndarray, "K H W"]:
        """How much of what moves along with the body each pixel shows, 0..1."""
        return np.ones(self.iuv.shape[:3], np.float32) if self.mask is None else np.where(self.person, 1, self.mask / np.float32(255))

    @cached_property
    def background(self) -> UInt8[np.ndarray, "H W 3"]:
        """The picture without the person, filled in smoothly where it never shows: the mean of the frames in which a pixel is free; of a
        camera that moves, whose mean would be a blur, the first frame alone."""
        covered = self.iuv[..., 0] > 0
        if self.mask is not None:
            covered = covered | (self.mask >= 32)
        grow = round(_CLEAR * max(self.frames.shape[1:3]))
        free = ~binary_dilation(covered, np.ones((1, 2 * grow + 1, 2 * grow + 1), bool))
        mean = _mean(self.frames, free)
        moving = np.sqrt(_mean(np.square(self.frames - mean), free).mean(-1))
        seen = free.sum(0) > 1
        if seen.any() and np.median(moving[seen]) > _MOVING_CAMERA:
            mean, free = self.frames[0].astype(float), free[:1]
        filled = _filled(torch.from_numpy(mean).permute(2, 0, 1)[None], torch.from_numpy(free.any(0))[None, None])
        return filled[0].permute(1, 2, 0).round().to(torch.uint8).numpy()


def _mean(values: np.ndarray, free: Bool[np.ndarray, "K H W"]) -> Float[np.ndarray, "H W 3"]:
    """Over the frames in which each pixel is free; zero where it never is."""
    return (values * free[..., None]).sum(0, dtype=float) / np.maximum(free.sum(0), 1)[..., None]


def known_frames(clip: Clip) -> KnownFrames:
    """The training part of a clip that has frames."""
    assert clip.frames is not None
    part = slice(clip.num_train)
    mask = None if clip.mask is None else clip.mask[part]
    return KnownFrames(clip.frames[part], clip.pose.iuv[part], clip.pose.keypoints[part], mask)


@dataclass(frozen=True)
class ReferencePictures:
    """What is known of N frames in a driving pose before any denoising."""

    warped: UInt8[np.ndarray, "N H W 3"]
    """The body, and a narrow band around it, carried along; `background` elsewhere."""
    background: UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class Sources:
    """The known frames that one new frame is drawn from, nearest pose first."""

    frames: Int[np.ndarray, " S"]
    distance: Float[np.ndarray, " S"]
    """How far each one's pose is (keypoint_distance)."""


def reference_pictures(
    known: KnownFrames, keypoints: Float[np.ndarray, "N 18 3"], iuv: UInt8[np.ndarray, "N H W 3"], usable: Bool[np.ndarray, "N K"] | None = None
) -> ReferencePictures:
    """Known frames warped to a pose. `usable[n, k]`: whether frame n may take from known frame k (none: all may).

    Raises ValueError where a frame has nothing to take from."""
    sources = nearest_sources(known, keypoints, usable)
    warped = np.empty((len(iuv), *known.frames.shape[1:]), np.uint8)
    for n, here in enumerate(iuv):
        warped[n] = warped_picture(known, sources[n], here)
    return ReferencePictures(warped, known.background)


def nearest_sources(known: KnownFrames, keypoints: Float[np.ndarray, "N 18 3"], usable: Bool[np.ndarray, "N K"] | None = None) -> list[Sources]:
    """What each of N frames is drawn from: of the usable known frames the NUM_SOURCES with the nearest poses.

    Raises ValueError where a frame has nothing to take from."""
    usable = np.ones((len(keypoints), len(known)), bool) if usable is None else usable
    if not usable.any(1).all():
        raise ValueError("a frame has no usable known frame")
    distance = keypoint_distance(known.keypoints, keypoints, known.frames.shape[1:3])
    nearest = np.argsort(np.where(usable, distance, np.inf), axis=1, kind="stable")[:, :NUM_SOURCES]
    return [Sources(order[may[order]], row[order[may[order]]]) for order, may, row in zip(nearest, usable, distance, strict=True)]


def apart(num_frames: int, gap: int) -> Bool[np.ndarray, "N N"]:
    """Which frames of a clip may lend their looks to which in training, where no frame may see its own neighbourhood: those more
    than `gap` away. A frame that has none takes from the farthest ones; an only frame from itself."""
    away = np.abs(np.arange(num_frames)[:, None] - np.arange(num_frames))
    return away > np.minimum(gap, away.max(1, keepdims=True) - 1)


def warped_picture(known: KnownFrames, where: Sources, iuv: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Each body pixel takes the colours nearest on the surface; those of a source with a farther pose must be that much nearer."""
    sources, distance = where.frames, where.distance
    body = iuv[..., 0] > 0
    there = np.argwhere(known.person[sources])
    if not body.any() or not len(there):
        return known.background
    surface = _surface_points(known.iuv[sources][tuple(there.T)])
    tree = cKDTree(np.concatenate([surface, (distance - distance.min())[there[:, 0], None]], 1))
    here = _surface_points(iuv[body])
    far, nearest = tree.query(np.concatenate([here, np.zeros((len(here), 1))], 1), k=min(_BLENDED, len(there)))
    far, nearest = far.reshape(len(here), -1), nearest.reshape(len(here), -1)
    height, width = body.shape
    origin = np.zeros((height, width, nearest.shape[1], 3), int)
    origin[body] = there[nearest]
    weight = np.zeros((height, width, nearest.shape[1], 1))
    weight[body] = (1 / (far**2 + _EXACT**2))[..., None]
    away, (rows, columns) = distance_transform_edt(~body, return_indices=True)
    band = away <= _BAND * max(height, width)
    y, x = np.nonzero(band)
    anchor_y, anchor_x = rows[band], columns[band]
    frame, from_y, from_x = np.moveaxis(origin[anchor_y, anchor_x], -1, 0)
    from_y, from_x = np.clip(from_y + (y - anchor_y)[:, None], 0, height - 1), np.clip(from_x + (x - anchor_x)[:, None], 0, width - 1)
    share = weight[anchor_y, anchor_x]
    share = share / share.sum(1, keepdims=True)
    colour = (known.frames[sources[frame], from_y, from_x] * share).sum(1)
    opaque = (known.coverage[sources[frame], from_y, from_x][..., None] * share).sum(1)
    picture = known.background.copy()
    picture[band] = np.rint(colour * opaque + picture[band] * (1 - opaque))
    return picture


def _filled(picture: Float[Tensor, "1 3 H W"], known: Bool[Tensor, "1 1 H W"]) -> Float[Tensor, "1 3 H W"]:
    """Unknown pixels from known ones around them: a coarser picture, itself filled, stands in for what is missing (pull-push)."""
    if known.all() or not known.any():
        return picture
    count = F.avg_pool2d(known.double(), 2, ceil_mode=True)
    coarse = F.avg_pool2d(picture * known, 2, ceil_mode=True) / count.clamp(min=1e-9)
    stand_in = F.interpolate(_filled(coarse, count > 0), size=picture.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(known, picture, stand_in)


def _surface_points(iuv: UInt8[np.ndarray, "P 3"]) -> Float[np.ndarray, "P 3"]:
    """Places in which nearness is nearness on the surface, in parts of the picture's side: charts lie far apart."""
    return np.concatenate([iuv[:, :1].astype(float) * 10, iuv[:, 1:] * (_CHART / 255)], 1)
