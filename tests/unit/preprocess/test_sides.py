"""Mirrored answers are found from the sequence; a real spin is not one."""

import numpy as np

from dpscale.body import rotations as rot
from dpscale.preprocess.sides import mirrored, mirrored_frames, undecided_frames


def person_turning(angles: np.ndarray) -> np.ndarray:
    """World landmarks of one random but fixed body (shoulders and hips in their place), turned about the vertical: [N, 33, 3]."""
    points = np.random.default_rng(0).normal(0, 0.2, (33, 3))
    points[[11, 12, 23, 24]] = [[0.17, -0.5, 0], [-0.17, -0.5, 0], [0.1, 0, 0], [-0.1, 0, 0]]
    turn = rot.from_vector(np.stack([np.zeros_like(angles), angles, np.zeros_like(angles)], -1))
    return points @ np.swapaxes(turn, -1, -2)


def test_flipped_answers_are_found_and_undone():
    world = person_turning(np.linspace(-0.5, 0.5, 60))
    flipped = np.zeros(60, bool)
    flipped[[0, 7, 8]] = True
    flipped[20:44] = True
    seen = world.copy()
    seen[flipped] = mirrored(world[flipped], world[flipped])[1]
    np.testing.assert_array_equal(mirrored_frames(seen), flipped)


def test_a_spin_is_left_alone():
    world = person_turning(np.linspace(0, 4 * np.pi, 60))  # two turns in two seconds at 30 frames a second
    assert not mirrored_frames(world).any()


def test_mirroring_twice_changes_nothing_and_exchanges_sides():
    world = person_turning(np.linspace(0, 1, 4))
    landmarks = np.random.default_rng(1).normal(size=(4, 33, 3))
    once = mirrored(landmarks, world)
    twice = mirrored(*once)
    np.testing.assert_allclose(twice[0], landmarks)
    np.testing.assert_allclose(twice[1], world, atol=1e-6)
    np.testing.assert_array_equal(once[0][:, 15], landmarks[:, 16])
    np.testing.assert_allclose(once[1][:, 11], world[:, 12], atol=1e-6)  # a point of the torso's plane stays in place


def test_a_torso_without_width_is_undecided():
    world = person_turning(np.zeros(9))
    world[4, [11, 12, 23, 24], 0] *= 0.3
    np.testing.assert_array_equal(np.flatnonzero(undecided_frames(world)), [4])
