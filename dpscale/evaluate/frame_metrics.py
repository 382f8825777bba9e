"""Numbers about finished frames (METHOD 8). Frames are uint8 RGB; one number per frame unless said otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import binary_dilation
from skimage.metrics import structural_similarity

PERFECT_PSNR = 100.0
"""PSNR of equal pictures, where the formula is infinite (DisCo's convention)."""

SSIM_WINDOW_PX = 7
LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601, as OpenCV and Pillow make grey."""

KeypointDetector = Callable[[UInt8[np.ndarray, "N H W 3"]], Float[np.ndarray, "N 18 3"]]
"""Frames -> OpenPose-18 in px with confidence; NaN in every entry of a frame where nobody was found."""


def psnr(made: UInt8[np.ndarray, "N H W 3"], truth: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, " N"]:
    """Peak signal-to-noise ratio in dB, in float64: 10 log10(255^2 / mse); 100 where the pictures are equal."""
    return np.array([_psnr_of_mse(_squared(a, b).mean()) for a, b in zip(made, truth, strict=True)])


def psnr_body(made: UInt8[np.ndarray, "N H W 3"], truth: UInt8[np.ndarray, "N H W 3"], body: Bool[np.ndarray, "N H W"]) -> Float[np.ndarray, " N"]:
    """PSNR in dB over the pixels of `body`; NaN in frames without any."""
    triples = zip(made, truth, body, strict=True)
    return np.array([_psnr_of_mse(_squared(a, b)[mask].mean()) if mask.any() else np.nan for a, b, mask in triples])


def dilated(body: Bool[np.ndarray, "N H W"], radius_px: int) -> Bool[np.ndarray, "N H W"]:
    """`body` grown by a disc of `radius_px` in each frame: hair and clothes reach beyond the body's mesh."""
    if radius_px == 0:
        return body.astype(bool)
    reach = np.arange(-radius_px, radius_px + 1)
    disc = reach[:, None] ** 2 + reach**2 <= radius_px**2
    return binary_dilation(body, disc[None])


def ssim(made: UInt8[np.ndarray, "N H W 3"], truth: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, " N"]:
    """Structural similarity of the grey pictures, -1..1: uint8, 7x7 uniform window (scikit-image's defaults)."""
    pairs = zip(grey(made), grey(truth), strict=True)
    return np.array([structural_similarity(a, b, win_size=SSIM_WINDOW_PX, data_range=255) for a, b in pairs])


def grey(frames: UInt8[np.ndarray, "N H W 3"]) -> UInt8[np.ndarray, "N H W"]:
    return np.rint(frames @ np.array(LUMA)).astype(np.uint8)


def mae(made: UInt8[np.ndarray, "N H W 3"], truth: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, " N"]:
    """Mean absolute error in grey levels, 0..255."""
    return np.array([np.abs(a.astype(np.float64) - b).mean() for a, b in zip(made, truth, strict=True)])


def l1(made: UInt8[np.ndarray, "N H W 3"], truth: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, " N"]:
    """`mae` / (H W), as DisCo's tables print it: compare only at equal resolution."""
    return mae(made, truth) / (made.shape[1] * made.shape[2])


def warp_error(frames: UInt8[np.ndarray, "N H W 3"], flow: Float[np.ndarray, "N H W 2"], valid: Bool[np.ndarray, "N H W"]) -> float:
    """Mean of |I_n(p) - I_n+1(p + F_n(p))| in grey levels, 0..255, over all valid pixels of all pairs of frames; one number for a video.

    `flow` is (dx / W, dy / H) from n to n+1. Frame n+1 is sampled bilinearly; a target outside the picture does not count.
    NaN if no pixel counts."""
    total, pixels = 0.0, 0
    for now, following, field, mask in zip(frames[:-1], frames[1:], flow, valid, strict=False):
        difference = _warp_differences(now, following, field, mask)
        total, pixels = total + difference.sum(), pixels + len(difference)
    return total / pixels if pixels else float("nan")


@dataclass(frozen=True)
class SeamScore:
    """Warping error (see `warp_error`) where windows of denoising begin or end, and everywhere else; NaN where no pixel counts."""

    at_borders: float
    elsewhere: float

    @property
    def ratio(self) -> float:
        """1: a seam cannot be told from any other place."""
        return self.at_borders / self.elsewhere


def seam_score(
    frames: UInt8[np.ndarray, "N H W 3"], flow: Float[np.ndarray, "N H W 2"], valid: Bool[np.ndarray, "N H W"], borders: Sequence[int]
) -> SeamScore:
    """`borders`: numbers n of the pairs of frames (n, n + 1) between which a window begins or ends (diffusion.windows.borders)."""
    sums = {True: [0.0, 0], False: [0.0, 0]}
    at_border = set(borders)
    for n in range(len(frames) - 1):
        difference = _warp_differences(frames[n], frames[n + 1], flow[n], valid[n])
        total = sums[n in at_border]
        total[0], total[1] = total[0] + difference.sum(), total[1] + len(difference)
    at, elsewhere = (float(total / pixels) if pixels else float("nan") for total, pixels in (sums[True], sums[False]))
    return SeamScore(at, elsewhere)


def _warp_differences(
    now: UInt8[np.ndarray, "H W 3"], following: UInt8[np.ndarray, "H W 3"], flow: Float[np.ndarray, "H W 2"], valid: Bool[np.ndarray, "H W"]
) -> Float[np.ndarray, " P"]:
    height, width = valid.shape
    y, x = np.nonzero(valid)
    to_x, to_y = x + flow[y, x, 0].astype(np.float64) * width, y + flow[y, x, 1].astype(np.float64) * height
    inside = (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)
    sampled = _bilinear(following, to_x[inside], to_y[inside])
    return np.abs(now[y[inside], x[inside]] - sampled).mean(axis=1)


def _bilinear(frame: UInt8[np.ndarray, "H W 3"], x: Float[np.ndarray, " P"], y: Float[np.ndarray, " P"]) -> Float[np.ndarray, "P 3"]:
    """Values at (x, y), in px counted from the centre of the first pixel, inside the picture."""
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, frame.shape[1] - 1), np.minimum(top + 1, frame.shape[0] - 1)
    across, down = (x - left)[:, None], (y - top)[:, None]
    above = frame[top, left] * (1 - across) + frame[top, right] * across
    below = frame[bottom, left] * (1 - across) + frame[bottom, right] * across
    return above * (1 - down) + below * down


@dataclass(frozen=True)
class KeypointScore:
    error_px: float
    """Mean distance in px over the driving sequence's confident keypoints, in frames where a person was found; NaN if in none."""
    detected: float
    """Part of the frames in which a person was found, 0..1. An error over few frames says little."""


def keypoint_score(detected: Float[np.ndarray, "N 18 3"], driving: Float[np.ndarray, "N 18 3"], min_confidence: float = 0.5) -> KeypointScore:
    """How far a detector finds the person from where the driving sequence puts them.

    Only the driving confidence chooses keypoints: a blurred hand must not improve its own score by not being seen."""
    found = np.isfinite(detected).all(axis=(1, 2))
    counted = (driving[..., 2] >= min_confidence) & found[:, None]
    distance = np.linalg.norm(detected[..., :2] - driving[..., :2], axis=-1)
    error = float(distance[counted].mean()) if counted.any() else float("nan")
    return KeypointScore(error, float(found.mean()))


def _squared(made: UInt8[np.ndarray, "H W 3"], truth: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 3"]:
    # uint8 differences wrap around: the mistake behind many published PSNRs. A frame at a time: a minute at 512 x 512 would take 11 GiB.
    return (made.astype(np.float64) - truth.astype(np.float64)) ** 2


def _psnr_of_mse(mse: float) -> float:
    return PERFECT_PSNR if mse == 0 else 10 * math.log10(255.0**2 / mse)
