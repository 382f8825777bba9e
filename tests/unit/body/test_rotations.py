import numpy as np
from numpy.testing import assert_allclose

from dpscale.body import rotations as rot


def test_vectors_and_matrices_are_inverse():
    vectors = np.random.default_rng(0).normal(size=(20, 3))
    assert_allclose(rot.to_vector(rot.from_vector(vectors)), vectors, atol=1e-9)


def test_quaternion_of_a_quarter_turn_about_z():
    half = np.sqrt(0.5)
    assert_allclose(rot.from_quaternion(np.array([half, 0, 0, half])) @ [1, 0, 0], [0, 1, 0], atol=1e-9)
    assert_allclose(rot.about_z(np.pi / 2) @ [1, 0, 0], [0, 1, 0], atol=1e-9)


def test_fraction_composes_to_the_whole():
    matrix = rot.from_vector(np.array([0.4, -0.3, 0.9]))
    third = rot.fraction(matrix, 1 / 3)
    assert_allclose(third @ third @ third, matrix, atol=1e-9)


def test_between_turns_one_direction_into_the_other():
    a, b = np.array([0.0, 0, -2]), np.array([1.0, 1, 0])
    assert_allclose(rot.between(a, b) @ a / 2, b / np.sqrt(2), atol=1e-9)
    assert_allclose(rot.between(a, a), np.eye(3), atol=1e-9)
