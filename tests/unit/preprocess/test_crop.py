"""The crop holds the person, moves points with pixels and antialiases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpscale.data.types import InputError
from dpscale.preprocess.crop import Crop, crop_around


@given(st.integers(0, 2**32 - 1), st.integers(20, 400), st.integers(20, 400), st.floats(1, 2))
def test_every_point_inside_the_picture_is_inside_the_crop(seed, height, width, margin):
    points = np.random.default_rng(seed).uniform([-50, -50], [width + 50, height + 50], (30, 2))
    crop = crop_around(points, height, width, margin, 64)
    moved = crop.points(points.clip(0, [width, height]))
    assert (moved >= -1).all()
    assert (moved <= 65).all()
    if crop.side <= min(height, width):
        assert crop.left >= 0
        assert crop.top >= 0
        assert crop.left + crop.side <= width
        assert crop.top + crop.side <= height


def test_points_follow_their_pixels():
    picture = np.zeros((100, 60, 3), np.uint8)
    picture[40:48, 20:28] = 255
    crop = Crop(left=10, top=30, side=40, size=20)
    rows, columns = np.nonzero(crop.apply(picture)[..., 0] > 128)
    found = np.array([columns.mean(), rows.mean()]) + 0.5
    np.testing.assert_allclose(found, crop.points(np.array([24.0, 44.0])), atol=0.3)  # to a third of a pixel: bicubic edges


def test_a_crop_beyond_the_picture_repeats_its_edge():
    picture = np.full((20, 10, 3), 7, np.uint8)
    picture[:, -1] = 200
    out = Crop(left=-5, top=0, side=20, size=20).apply(picture)
    assert out.shape == (20, 20, 3)
    assert (out[:, :13] == 7).all()
    assert (out[:, 16:] == 200).all()


def test_shrinking_averages():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    out = Crop(0, 0, 64, 16).apply(stripes)[4:-4, 4:-4]
    assert np.abs(out.astype(int) - 127).max() < 20  # without antialiasing it would be all black or all white


def test_the_camera_moves_with_the_crop():
    crop = Crop(left=100, top=50, side=200, size=100)
    assert crop.camera(1000.0, (200.0, 150.0)) == (500.0, (50.0, 50.0))


def test_a_person_beside_the_picture_is_refused():
    with pytest.raises(InputError, match="outside the picture"):
        crop_around(np.full((5, 2), -10.0), 50, 50, 1.2, 64)
