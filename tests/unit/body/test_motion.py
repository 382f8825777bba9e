import numpy as np
import pytest
from numpy.testing import assert_allclose

from dpscale.body.motion import load_motion, standing_on_floor
from dpscale.body.parametric import load_body
from dpscale.data.types import InputError


@pytest.fixture(scope="module")
def shaped():
    return load_body().shaped(load_body().mean_shape)


def test_an_unknown_recording_is_refused_with_the_known_ones(shaped):
    with pytest.raises(InputError, match=r"no_such_dance.*known are.*dance_a.*walk"):
        load_motion("no_such_dance", load_body(), shaped, 30.0, 4)


def test_a_looping_recording_goes_on_without_a_jump(shaped):
    body = load_body()
    motion = load_motion("walk", body, shaped, 30.0, 90)
    joints = body.joint_positions(shaped, motion.rotations, motion.root)
    assert np.abs(np.diff(joints, axis=0)).max() < 0.25
    assert_allclose(motion.rotations @ np.swapaxes(motion.rotations, -1, -2), np.broadcast_to(np.eye(3), motion.rotations.shape), atol=1e-6)


def test_the_body_faces_the_camera_side_on_average(shaped):
    motion = load_motion("walk", load_body(), shaped, 30.0, 60)
    heading = (motion.rotations[:, 0] @ [0, -1.0, 0]).mean(0)
    assert heading[1] < -0.9


def test_it_can_be_put_on_the_floor(shaped):
    body = load_body()
    motion = load_motion("walk", body, shaped, 10.0, 10)
    grounded = standing_on_floor(motion, body.skin(shaped, motion.rotations, motion.root))
    lowest = body.skin(shaped, grounded.rotations, grounded.root)[:, :, 2].min(1)
    assert abs(np.percentile(lowest, 5)) < 1e-9
