"""The crop of an IUV map shows the same places as the crop of the picture, and no value that was not there."""

import numpy as np
import pytest

from dpscale.preprocess.crop import Crop
from dpscale.preprocess.iuv_crop import crop_iuv


def blocks() -> np.ndarray:
    """Parts in blocks of 10 px, each with its own u, v."""
    parts = np.arange(6 * 4).reshape(6, 4).repeat(10, 0).repeat(10, 1).astype(np.uint8)
    return np.stack([parts, parts * 7, 255 - parts], -1)


@pytest.mark.parametrize("size", [16, 37, 40, 64, 111])
def test_nothing_is_mixed_and_places_agree_with_the_picture(size):
    iuv, crop = blocks(), Crop(left=0, top=7, side=40, size=size)
    out = crop_iuv(crop, iuv)
    assert out.shape == (size, size, 3)
    assert {tuple(value) for value in out.reshape(-1, 3)} <= {tuple(value) for value in iuv.reshape(-1, 3)}
    at = np.random.default_rng(0).uniform([0, 7], [40, 47], (200, 2))
    away = np.abs(at - np.rint(at / 10) * 10).min(1) > 3  # px from the blocks' edges
    x, y = crop.points(at[away]).astype(int).T
    px, py = at[away].astype(int).T
    np.testing.assert_array_equal(out[y, x], iuv[py, px])


def test_at_its_own_size_the_crop_is_a_window():
    np.testing.assert_array_equal(crop_iuv(Crop(3, 5, 32, 32), blocks()), blocks()[5:37, 3:35])


def test_beyond_the_picture_lies_background():
    out = crop_iuv(Crop(left=-10, top=-10, side=80, size=80), blocks() | 1)
    inside = np.zeros((80, 80), bool)
    inside[10:70, 10:50] = True
    np.testing.assert_array_equal(out[..., 0] > 0, inside)
    assert not out[~inside].any()
