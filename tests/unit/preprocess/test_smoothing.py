"""SmoothingConfig in time: what must stay stays, noise goes, what was not seen pulls nobody."""

import math

import numpy as np
import pytest

from dpscale.body.rendered import render_performer
from dpscale.config.estimators import SmoothingConfig
from dpscale.preprocess.smoothing import body_size, filled, one_euro, savgol, smooth

FPS = 30.0
KINDS = ["one_euro", "savgol"]


def _sure(track):
    return np.ones(track.shape[:2])


def _slow_one_euro(values, fps, min_cutoff, beta, derivative_cutoff):
    """Casiez et al. 2012, algorithm 1, for one number a frame."""

    def alpha(cutoff):
        tau = 1 / (2 * math.pi * cutoff)
        return 1 / (1 + tau * fps)

    result, speed = [values[0]], 0.0
    for value in values[1:]:
        change = (value - result[-1]) * fps
        speed = alpha(derivative_cutoff) * change + (1 - alpha(derivative_cutoff)) * speed
        a = alpha(min_cutoff + beta * abs(speed))
        result.append(a * value + (1 - a) * result[-1])
    return result


def test_one_euro_equals_the_scalar_loop():
    track = np.random.default_rng(0).normal(size=(25, 4, 3)).cumsum(0)
    fast = one_euro(track, FPS, 1.5, 0.7, 0.9)
    for k, c in np.ndindex(4, 3):
        np.testing.assert_allclose(fast[:, k, c], _slow_one_euro(track[:, k, c].tolist(), FPS, 1.5, 0.7, 0.9), rtol=1e-12)


def test_one_euro_never_looks_ahead():
    track = np.random.default_rng(1).normal(size=(20, 3, 2))
    np.testing.assert_array_equal(one_euro(track, FPS, 1.0, 0.5)[:12], one_euro(track[:12], FPS, 1.0, 0.5))


def test_savgol_equals_polynomials_fitted_one_by_one():
    track = np.random.default_rng(2).normal(size=(21, 2, 2))
    fast = savgol(track, 7, 2)
    frames = np.arange(-3, 4)
    for n in range(3, 18):
        middle = np.polyfit(frames, track[n - 3 : n + 4, 1, 0], 2)[-1]
        assert fast[n, 1, 0] == pytest.approx(middle, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_still_body_stays(kind):
    track = np.tile(np.random.default_rng(3).uniform(0, 500, (1, 18, 2)), (40, 1, 1))
    np.testing.assert_allclose(smooth(track, _sure(track), FPS, SmoothingConfig(kind=kind)), track, atol=1e-9)


def test_savgol_keeps_linear_motion_exactly():
    track = np.arange(40.0)[:, None, None] * np.array([[3.0, -1.0], [0.5, 0.0]])
    np.testing.assert_allclose(smooth(track, _sure(track), FPS, SmoothingConfig(kind="savgol", window_s=0.3)), track, atol=1e-9)


def test_one_euro_keeps_the_speed_of_linear_motion_and_lags_as_its_cutoff_says():
    speed, cutoff, beta = 2.0, 1.5, 6.0  # units per s
    track = (speed * np.arange(400) / FPS)[:, None, None]
    smoothed = one_euro(track, FPS, cutoff, beta)
    np.testing.assert_allclose(np.diff(smoothed[-50:, 0, 0]) * FPS, speed, rtol=1e-6)
    lag = float(track[-1, 0, 0] - smoothed[-1, 0, 0])
    measured_speed = speed + lag * FPS  # algorithm 1 takes it from the new sample and the last filtered one
    assert lag == pytest.approx(speed / (2 * np.pi * (cutoff + beta * measured_speed)), rel=1e-4)


@pytest.fixture(scope="module")
def walk():
    """18 keypoints of a rendered walk: exact, in px of 192."""
    return render_performer(1_000_003, "walk", 40, FPS, 192, 1, yaw=0.0).pose.keypoints[..., :2].astype(float)


@pytest.mark.parametrize(("kind", "place_left", "trembling_left"), [("savgol", 0.8, 0.5), ("one_euro", 0.8, 0.5)])
def test_noise_on_a_walk_is_reduced(walk, kind, place_left, trembling_left):
    noisy = walk + np.random.default_rng(4).normal(scale=1.5, size=walk.shape)
    smoothed = smooth(noisy, _sure(walk), FPS, SmoothingConfig(kind=kind))

    def error(track, order):
        return np.sqrt((np.diff(track - walk, order, axis=0) ** 2).mean())

    assert error(smoothed, 0) < place_left * error(noisy, 0)
    assert error(smoothed, 2) < trembling_left * error(noisy, 2)


def test_savgol_smears_a_jump_over_its_window_only():
    track = np.zeros((40, 1, 2))
    track[20:] = 100.0
    smoothed = smooth(track, _sure(track), FPS, SmoothingConfig(kind="savgol", window_s=7 / FPS))
    np.testing.assert_allclose(smoothed[:17], 0, atol=1e-9)
    np.testing.assert_allclose(smoothed[23:], 100, atol=1e-9)


def test_one_euro_follows_a_jump_within_a_fifth_of_a_second():
    track = np.zeros((40, 2, 2))
    track[:, 1] = 1.0
    track[20:] += 0.5
    smoothed = smooth(track, _sure(track), FPS, SmoothingConfig(kind="one_euro"))
    np.testing.assert_array_equal(smoothed[:20], track[:20])
    assert abs(smoothed[26:] - track[26:]).max() < 0.1 * 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_unsure_points_do_not_pull_their_neighbours(kind):
    track = np.tile(np.arange(30.0)[:, None, None], (1, 5, 2))
    track[:, 1] += 40.0
    confidence, spoilt = _sure(track), track.copy()
    confidence[10:13, 2] = confidence[29, 2] = 0.1
    spoilt[10:13, 2] = spoilt[29, 2] = -900.0
    settings, around = SmoothingConfig(kind=kind), [*range(10), *range(13, 29)]
    expected, smoothed = smooth(track, _sure(track), FPS, settings), smooth(spoilt, confidence, FPS, settings)
    np.testing.assert_allclose(smoothed[around], expected[around], atol=1.0 if kind == "savgol" else 1e-9)
    np.testing.assert_allclose(smoothed[10:13, 2], expected[10:13, 2], atol=1e-9)


def test_gaps_are_linear_and_ends_constant():
    track = np.array([9.0, 1, 9, 9, 4, 9]).reshape(6, 1, 1)
    confidence = np.array([0.0, 1, 0, 0.1, 1, 0]).reshape(6, 1)
    np.testing.assert_allclose(filled(track, confidence, 0.2).ravel(), [1, 1, 2, 3, 4, 4])


@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_a_point_never_seen_and_none_change_nothing(kind):
    track = np.random.default_rng(5).normal(size=(12, 3, 2))
    confidence = _sure(track)
    confidence[:, 1] = 0.0
    smoothed = smooth(track, confidence, FPS, SmoothingConfig(kind=kind))
    np.testing.assert_array_equal(smoothed[:, 1], track[:, 1])
    assert (smoothed is track) == (kind == "none")
    np.testing.assert_array_equal(smooth(track, 0 * confidence, FPS, SmoothingConfig(kind=kind)), track)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_short_clips_work(kind, num_frames):
    track = np.arange(num_frames * 6.0).reshape(num_frames, 3, 2)
    smoothed = smooth(track, _sure(track), FPS, SmoothingConfig(kind=kind))
    assert smoothed.shape == track.shape
    np.testing.assert_array_equal(smoothed[0], track[0]) if kind != "savgol" else np.testing.assert_allclose(smoothed, track)


def test_the_result_does_not_depend_on_the_unit(walk):
    for kind in KINDS:
        px, metres = (smooth(walk * unit, _sure(walk), FPS, SmoothingConfig(kind=kind)) / unit for unit in (1.0, 0.01))
        np.testing.assert_allclose(px, metres, atol=1e-9)


def test_the_size_of_a_body_is_that_of_its_sure_points():
    track = np.zeros((3, 3, 2))
    track[:, 1], track[:, 2] = [3.0, 4.0], [90.0, 90.0]
    confidence = np.array([[1, 1, 0]] * 3, float)
    assert body_size(track, confidence, 0.5) == pytest.approx(5.0)
    assert body_size(track, 0 * confidence, 0.5) == body_size(0 * track, confidence, 0.5) == 1.0
