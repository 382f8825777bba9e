"""Exact answers, and slow obvious twins written pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpscale.evaluate import frame_metrics as fm


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_psnr_of_equal_pictures_is_100_and_of_opposite_ones_0():
    black, white = np.zeros((2, 8, 8, 3), np.uint8), np.full((2, 8, 8, 3), 255, np.uint8)
    assert fm.psnr(black, black).tolist() == [100.0, 100.0]
    assert fm.psnr(black, white).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("low", "high"), [(10, 11), (0, 16), (250, 3)])
def test_psnr_does_not_wrap_around_in_either_direction(low, high):
    a, b = np.full((1, 4, 4, 3), low, np.uint8), np.full((1, 4, 4, 3), high, np.uint8)
    expected = 20 * math.log10(255 / abs(low - high))
    assert fm.psnr(a, b)[0] == pytest.approx(expected, abs=1e-12)
    assert fm.psnr(b, a)[0] == pytest.approx(expected, abs=1e-12)


def test_psnr_body_sees_only_the_body():
    truth, made = noise(3, 8, 8, 3), noise(3, 8, 8, 3)
    body = np.zeros((3, 8, 8), bool)
    body[0, 2:5, 1:6] = True
    body[1] = True
    made[0][body[0]] = np.clip(truth[0][body[0]].astype(int) + np.where(truth[0][body[0]] > 127, -5, 5), 0, 255)
    values = fm.psnr_body(made, truth, body)
    assert values[0] == pytest.approx(20 * math.log10(255 / 5))
    assert values[1] == pytest.approx(fm.psnr(made, truth)[1])
    assert math.isnan(values[2])


def slow_dilated(mask, radius):
    grown = np.zeros_like(mask)
    for n, y, x in np.ndindex(mask.shape):
        for v, u in np.ndindex(mask.shape[1:]):
            grown[n, y, x] |= mask[n, v, u] and (y - v) ** 2 + (x - u) ** 2 <= radius**2
    return grown


@pytest.mark.parametrize("radius", [0, 1, 2, 3])
def test_dilation_is_a_disc_in_each_frame_alone(radius):
    mask = np.random.default_rng(1).random((2, 9, 7)) < 0.05
    mask[0] = False  # growth must not cross frames
    np.testing.assert_array_equal(fm.dilated(mask, radius), slow_dilated(mask, radius))


def slow_ssim(a, b):
    """Wang et al. 2004 with a 7x7 uniform window, sample covariance, borders left out."""
    values = []
    for y in range(3, a.shape[0] - 3):
        for x in range(3, a.shape[1] - 3):
            p, q = a[y - 3 : y + 4, x - 3 : x + 4].astype(float), b[y - 3 : y + 4, x - 3 : x + 4].astype(float)
            covariance = ((p - p.mean()) * (q - q.mean())).sum() / 48
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            numerator = (2 * p.mean() * q.mean() + c1) * (2 * covariance + c2)
            values.append(numerator / ((p.mean() ** 2 + q.mean() ** 2 + c1) * (p.var(ddof=1) + q.var(ddof=1) + c2)))
    return np.mean(values)


def test_ssim_matches_its_definition():
    truth = noise(2, 16, 15, 3)
    made = np.clip(truth.astype(int) + np.random.default_rng(1).integers(-30, 30, truth.shape), 0, 255).astype(np.uint8)
    expected = [slow_ssim(a, b) for a, b in zip(fm.grey(made), fm.grey(truth), strict=True)]
    np.testing.assert_allclose(fm.ssim(made, truth), expected, rtol=1e-6)  # scikit-image filters with running sums
    np.testing.assert_allclose(fm.ssim(truth, truth), 1.0)


def test_grey_is_rounded_bt601():
    pixel = np.array([[[[200, 100, 50]]]], np.uint8)
    assert fm.grey(pixel)[0, 0, 0] == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)


def test_mae_and_l1_follow_the_definition():
    made, truth = noise(2, 4, 6, 3), noise(2, 4, 6, 3, seed=1)
    slow = [sum(abs(int(p) - int(q)) for p, q in zip(a.ravel(), b.ravel(), strict=True)) / a.size for a, b in zip(made, truth, strict=True)]
    np.testing.assert_allclose(fm.mae(made, truth), slow)
    np.testing.assert_allclose(fm.l1(made, truth), np.array(slow) / 24)


def test_warp_error_is_zero_for_a_picture_that_moves_as_the_flow_says():
    texture = noise(8, 20, 3)
    frames = np.stack([texture[:, 4 - 2 * n : 16 - 2 * n] for n in range(3)])  # two px to the right a frame
    flow = np.zeros((3, 8, 12, 2))
    flow[..., 0] = 2 / 12
    assert fm.warp_error(frames, flow, np.ones((3, 8, 12), bool)) == pytest.approx(0, abs=1e-9)
    assert fm.warp_error(frames, np.zeros_like(flow), np.ones((3, 8, 12), bool)) > 10


def slow_warp_error(frames, flow, valid):
    """Every pixel by hand: bilinear weights as tents over the whole picture."""
    count, height, width = valid.shape
    errors = []
    for n in range(count - 1):
        for y, x in np.ndindex(height, width):
            to_x, to_y = x + flow[n, y, x, 0] * width, y + flow[n, y, x, 1] * height
            if not valid[n, y, x] or not (0 <= to_x <= width - 1 and 0 <= to_y <= height - 1):
                continue
            tent = np.clip(1 - np.abs(np.arange(height) - to_y), 0, 1)[:, None] * np.clip(1 - np.abs(np.arange(width) - to_x), 0, 1)
            sampled = (tent[..., None] * frames[n + 1]).sum(axis=(0, 1))
            errors.append(np.abs(frames[n, y, x] - sampled).mean())
    return np.mean(errors)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_warp_error_matches_its_slow_twin(seed):
    rng = np.random.default_rng(seed)
    frames, flow = noise(3, 6, 9, 3, seed=seed), rng.uniform(-0.4, 0.4, (3, 6, 9, 2))
    valid = rng.random((3, 6, 9)) < 0.7
    assert fm.warp_error(frames, flow, valid) == pytest.approx(slow_warp_error(frames, flow, valid), rel=1e-9)


def test_warp_error_without_a_valid_pixel_is_not_a_number():
    assert math.isnan(fm.warp_error(noise(3, 4, 4, 3), np.zeros((3, 4, 4, 2)), np.zeros((3, 4, 4), bool)))


def test_keypoint_error_counts_confident_driving_points_in_frames_with_a_person():
    driving = np.zeros((3, 18, 3))
    driving[..., 2] = 1
    driving[:, 5, 2] = 0.1  # not confident: its distance must not count
    detected = driving.copy()
    detected[..., 0] += 3
    detected[..., 1] += 4
    detected[:, 5, 0] += 1000
    detected[..., 2] = 0  # a low confidence of the detector excuses nothing
    detected[2] = np.nan
    score = fm.keypoint_score(detected, driving)
    assert score.error_px == pytest.approx(5.0)
    assert score.detected == pytest.approx(2 / 3)


def test_keypoint_error_with_nobody_found_is_not_a_number():
    score = fm.keypoint_score(np.full((2, 18, 3), np.nan), np.ones((2, 18, 3)))
    assert math.isnan(score.error_px)
    assert score.detected == 0


def test_a_seam_shows_at_the_border_and_nowhere_else():
    """A still picture that grows brighter by 10 levels at frame 4, where a window begins: 10 there, 0 elsewhere."""
    frames = np.full((8, 6, 6, 3), 100, np.uint8)
    frames[4:] += 10
    flow, valid = np.zeros((8, 6, 6, 2), np.float32), np.ones((8, 6, 6), bool)
    score = fm.seam_score(frames, flow, valid, [3])
    assert (score.at_borders, score.elsewhere) == (10.0, 0.0)
    moved = fm.seam_score(frames, flow, valid, [5])
    assert (moved.at_borders, moved.elsewhere) == (0.0, pytest.approx(10 / 6))


def test_without_a_seam_borders_are_like_any_other_place():
    frames = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    flow, valid = np.zeros((40, 16, 16, 2), np.float32), np.ones((40, 16, 16), bool)
    score = fm.seam_score(frames, flow, valid, [7, 15, 23, 31])
    assert score.ratio == pytest.approx(1, abs=0.05)
    total = 4 * score.at_borders + 35 * score.elsewhere
    assert total / 39 == pytest.approx(fm.warp_error(frames, flow, valid))
    assert np.isnan(fm.seam_score(frames, flow, valid, []).at_borders)
