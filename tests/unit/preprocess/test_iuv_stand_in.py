"""u and v that stand in for unknown ones run the way the embedded body's charts do."""

import numpy as np
import pytest

from dpscale.body.rendered import render_performer
from dpscale.preprocess.iuv_stand_in import with_stand_in


@pytest.fixture(scope="module")
def iuv():
    return render_performer(1_000_002, "dance_a", 4, 15.0, 128, 1, with_flow=False).pose.iuv


def test_v_follows_the_charts_of_the_body(iuv):
    found = np.stack([with_stand_in(frame[..., 0]) for frame in iuv])
    body = iuv[..., 0] > 0
    np.testing.assert_array_equal(found[..., 0], iuv[..., 0])
    assert not found[~body].any()
    off = np.abs(found[body].astype(int) - iuv[body])
    assert np.median(off[:, 2]) < 25  # of 255
    constant = np.abs(127 - iuv[body][:, 2].astype(int))
    assert off[:, 2].mean() < 0.5 * constant.mean()


def test_a_lone_limb_runs_downwards_and_turns_with_its_neighbour():
    arm = np.zeros((60, 60), np.uint8)
    arm[10:40, 20:26] = 21
    v = with_stand_in(arm)[..., 2]
    assert v[10, 22] == 0
    assert v[39, 22] == 255
    assert (np.diff(v[10:40, 22].astype(int)) > 0).all()
    arm[42:58, 20:26] = 15  # the upper arm below it: the arm is raised
    v = with_stand_in(arm)[..., 2]
    assert v[10, 22] == 255
    assert v[39, 22] == 0


def test_equal_maps_give_equal_values_wherever_they_lie():
    small = np.zeros((80, 80), np.uint8)
    small[10:40, 10:30], small[40:60, 10:18] = 2, 9
    moved = np.roll(small, (15, 25), (0, 1))
    np.testing.assert_array_equal(np.roll(with_stand_in(small), (15, 25), (0, 1)), with_stand_in(moved))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1)])
def test_tiny_parts_have_values_too(shape):
    parts = np.zeros((9, 9), np.uint8)
    parts[3 : 3 + shape[0], 2 : 2 + shape[1]] = 3
    found = with_stand_in(parts)
    np.testing.assert_array_equal(found[..., 0], parts)
    assert (found[parts > 0][:, 1:] <= 255).all()
    assert not with_stand_in(np.zeros((9, 9), np.uint8)).any()
