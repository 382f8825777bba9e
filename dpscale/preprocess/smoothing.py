"""Takes the trembling out of a track of keypoints or landmarks, in time: N frames, K points, C coordinates in any unit.

What was not seen is interpolated first, so a wrong guess never pulls its neighbours. `savgol` looks both ways and lags nowhere;
`one_euro` is causal, as live estimators are, and lags a little."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from dpscale.config.estimators import SmoothingConfig


def smooth(
    track: Float[np.ndarray, "N K C"], confidence: Float[np.ndarray, "N K"], fps: float, settings: SmoothingConfig
) -> Float[np.ndarray, "N K C"]:
    """The track in its own unit, smoothed; `none` gives it back untouched. A point that is never sure stays as it is."""
    if settings.kind == "none":
        return track
    never = (confidence < settings.min_confidence).all(0)
    sure = filled(track, confidence, settings.min_confidence)
    if settings.kind == "savgol":
        smoothed = savgol(sure, round(settings.window_s * fps), settings.polyorder)
    else:
        size = body_size(track, confidence, settings.min_confidence)
        smoothed = one_euro(sure / size, fps, settings.min_cutoff_hz, settings.beta) * size
    return np.where(never[:, None], track, smoothed)


def filled(track: Float[np.ndarray, "N K C"], confidence: Float[np.ndarray, "N K"], min_confidence: float) -> Float[np.ndarray, "N K C"]:
    """Points below `min_confidence` replaced: linear in time between those at or above it, constant before and after.

    A point that is below it in all frames stays as it is."""
    result, every = track.copy(), np.arange(len(track))
    for k in range(track.shape[1]):
        at = np.flatnonzero(confidence[:, k] >= min_confidence)
        if 0 < len(at) < len(every):
            result[:, k] = np.stack([np.interp(every, at, column) for column in track[at, k].T], -1)
    return result


def one_euro(
    track: Float[np.ndarray, "N K C"], fps: float, min_cutoff_hz: float, beta: float, derivative_cutoff_hz: float = 1.0
) -> Float[np.ndarray, "N K C"]:
    """The 1-euro filter (Casiez et al. 2012, algorithm 1), every coordinate by itself. `beta` in Hz per (unit of the track / s)."""
    smoothed, speed = track.copy(), np.zeros(track.shape[1:])
    calm = _alpha(derivative_cutoff_hz, fps)
    for n in range(1, len(track)):
        speed = calm * (track[n] - smoothed[n - 1]) * fps + (1 - calm) * speed
        alpha = _alpha(min_cutoff_hz + beta * np.abs(speed), fps)
        smoothed[n] = alpha * track[n] + (1 - alpha) * smoothed[n - 1]
    return smoothed


def savgol(track: Float[np.ndarray, "N K C"], window: int, polyorder: int) -> Float[np.ndarray, "N K C"]:
    """Savitzky-Golay: each value from a polynomial fitted to `window` frames around it; at the ends, to the first or last window.

    The window is made odd, and no longer than the track; one that the polynomial meets in every frame changes nothing."""
    longest = min(window, len(track))
    odd = longest - 1 + longest % 2
    from scipy.signal import savgol_filter  # slow to import, and most runs smooth nothing

    return savgol_filter(track, odd, polyorder, axis=0) if odd > polyorder + 1 else track


def body_size(track: Float[np.ndarray, "N K C"], confidence: Float[np.ndarray, "N K"], min_confidence: float) -> float:
    """Diagonal of the box around the sure points, its median over the frames, in the track's unit; 1 if there is none."""
    seen = np.where((confidence >= min_confidence)[..., None], track, np.nan)[(confidence >= min_confidence).any(1)]
    if not len(seen):
        return 1.0
    size = float(np.median(np.linalg.norm(np.nanmax(seen, 1) - np.nanmin(seen, 1), axis=-1)))
    return size if size > 0 else 1.0


def _alpha(cutoff_hz: float | np.ndarray, fps: float) -> float | np.ndarray:
    """Weight of the newest sample (equations 3 and 5)."""
    return 1 / (1 + fps / (2 * np.pi * cutoff_hz))
