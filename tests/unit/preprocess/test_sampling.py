"""Sampling between pixels against scipy's."""

import numpy as np
from scipy.ndimage import map_coordinates

from dpscale.preprocess.sampling import bilinear


def test_bilinear_equals_scipy():
    rng = np.random.default_rng(0)
    picture, points = rng.uniform(0, 255, (20, 30, 3)), rng.uniform(-3, 32, (8, 9, 2))
    slow = np.stack([map_coordinates(picture[..., c], [points[..., 1], points[..., 0]], order=1, mode="grid-constant") for c in range(3)], -1)
    np.testing.assert_allclose(bilinear(picture, points), slow, atol=1e-9)
