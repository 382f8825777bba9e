import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from dpscale.body.raster import rasterise


def _slow(points, depth, faces, height, width):
    """One pixel and one face at a time."""
    face, nearest = np.full((height, width), -1), np.full((height, width), np.inf)
    for row in range(height):
        for column in range(width):
            p = np.array([column + 0.5, row + 0.5])
            for index, (i, j, k) in enumerate(faces):
                matrix = np.array([points[i] - points[k], points[j] - points[k]]).T
                if np.linalg.det(matrix) >= 0:
                    continue
                u, v = np.linalg.solve(matrix, p - points[k])
                if min(u, v, 1 - u - v) < 0:
                    continue
                z = 1 / (u / depth[i] + v / depth[j] + (1 - u - v) / depth[k])
                if z < nearest[row, column]:
                    face[row, column], nearest[row, column] = index, z
    return face, nearest


def test_equals_the_obvious_rasteriser():
    rng = np.random.default_rng(0)
    points, depth = rng.uniform(-4, 24, (30, 2)), rng.uniform(1, 5, 30)
    faces = rng.integers(0, 30, (40, 3))
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])]
    raster = rasterise(points, depth, faces, 16, 20)
    face, nearest = _slow(points, depth, faces, 16, 20)
    assert_array_equal(raster.face, face)
    assert_allclose(raster.depth, nearest, rtol=1e-9)


def test_barycentrics_are_perspective_correct():
    points, depth = np.array([[0.0, 0], [0, 20], [20, 0]]), np.array([1.0, 2, 4])
    raster = rasterise(points, depth, np.array([[0, 1, 2]]), 20, 20)
    seen = raster.face == 0
    assert_allclose(raster.barycentric[seen].sum(1), 1)
    assert_allclose(raster.barycentric[seen] @ depth, raster.depth[seen], rtol=1e-9)


def test_nothing_in_front_of_the_camera_draws_nothing():
    raster = rasterise(np.zeros((3, 2)), -np.ones(3), np.array([[0, 1, 2]]), 4, 5)
    assert (raster.face == -1).all()
    assert np.isinf(raster.depth).all()
