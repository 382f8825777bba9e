"""Keypoints come back out of skeleton drawings after H.264; what is no such drawing is told apart."""

import numpy as np
import pytest

from dpscale.body.rendered import render_performer
from dpscale.data.types import OPENPOSE18, InputError
from dpscale.preprocess.decode import read_frames
from dpscale.preprocess.densepose_colour import PALETTE
from dpscale.preprocess.skeleton_drawing import is_skeleton_drawing, read_skeletons
from dpscale.preprocess.sources import write_h264
from tests.unit.preprocess.skeleton_pictures import draw_skeleton
from tests.unit.preprocess.videos import pattern

SIZE, NUM_FRAMES = 256, 5
WRIST, KNEE = OPENPOSE18.index("right_wrist"), OPENPOSE18.index("left_knee")

STANDING = np.ones((18, 3))
STANDING[:, :2] = [
    (128, 40), (128, 70), (100, 72), (90, 110), (84, 145), (156, 72), (166, 110), (172, 145), (112, 140),
    (108, 185), (106, 230), (144, 140), (148, 185), (150, 230), (120, 32), (136, 32), (108, 36), (148, 36),
]  # fmt: skip


@pytest.fixture(scope="module", params=["dance_a", "walk"])
def keypoints(request):
    return render_performer(1_000_002, request.param, NUM_FRAMES, 5.0, SIZE, 1, with_flow=False).pose.keypoints.astype(float)


def through_h264(folder, frames):
    write_h264(folder / "drawing.mp4", np.stack(frames), 15)
    return np.stack(list(read_frames(folder / "drawing.mp4", 100)))


def errors_px(found, truth):
    return np.linalg.norm(found[..., :2] - truth[..., :2], axis=-1)


@pytest.mark.parametrize(("stick_px", "radius_px"), [(4, 4), (2, 2)])
def test_keypoints_come_back(tmp_path, keypoints, stick_px, radius_px):
    frames = through_h264(tmp_path, [draw_skeleton(points, SIZE, stick_px, radius_px) for points in keypoints])
    assert is_skeleton_drawing(frames)
    found = read_skeletons("drawing.mp4", frames, 0.5)
    assert found.dtype == np.float32
    seen, off = found[..., 2] == 1, errors_px(found, keypoints)
    assert seen.mean() > 0.85  # the rest lies under other joints
    assert np.median(off[seen]) < 0.8
    assert off[seen].max() < 4
    assert set(np.unique(found[..., 2])) <= {0, 0.5, 1}
    assert not found[found[..., 2] == 0].any()


def test_hands_and_a_face_over_it_do_no_harm(tmp_path, keypoints):
    frames = through_h264(tmp_path, [draw_skeleton(points, SIZE, extras=n) for n, points in enumerate(keypoints)])
    found = read_skeletons("drawing.mp4", frames, 0.5)
    seen, off = found[..., 2] == 1, errors_px(found, keypoints)
    assert seen.mean() > 0.65
    assert np.median(off[seen]) < 0.8
    assert off[seen].max() < 6
    assert np.median(off[found[..., 2] == 0.5]) < 8


def test_joints_that_are_not_drawn_stay_unknown():
    for missing in ([WRIST], [9, 10], [0, 14, 15, 16, 17]):
        points = STANDING.copy()
        points[missing, 2] = 0
        found = read_skeletons("x", [draw_skeleton(points, SIZE)] * 2, 0.5)
        np.testing.assert_array_equal(np.flatnonzero(found[0, :, 2] == 0), missing)


def test_a_covered_joint_is_found_where_its_limbs_end():
    picture = draw_skeleton(STANDING, SIZE)
    x, y = STANDING[KNEE, :2].astype(int)
    picture[y - 5 : y + 6, x - 5 : x + 6] = 255
    found = read_skeletons("x", [picture] * 2, 0.5)[0, KNEE]
    assert found[2] == 0.5
    assert np.linalg.norm(found[:2] - [x, y]) < 2.5


def test_a_limb_that_crosses_cuts_nothing_off():
    points = STANDING.copy()
    points[[3, 4], :2] = [(96, 105), (150, 125)]  # the right forearm before the torso
    points[[6, 7], :2] = [(160, 105), (104, 122)]
    found = read_skeletons("x", [draw_skeleton(points, SIZE)] * 2, 0.5)[0]
    assert (found[:, 2] == 1).all()
    assert errors_px(found, points).max() < 1.5


def test_a_hand_is_no_knee():
    """Hands are drawn with dots that look exactly like the left knee."""
    points = STANDING.copy()
    points[[12, 13], 2] = 0
    hand = draw_skeleton(STANDING * [1, 1, 0], SIZE)
    for dot in range(4):
        hand[150 + 9 * dot : 158 + 9 * dot, 60:68] = [0, 0, 255]
    picture = np.maximum(draw_skeleton(points, SIZE), hand)
    assert read_skeletons("x", [picture] * 2, 0.5)[0, KNEE, 2] == 0


def test_two_people_are_refused():
    left, right = STANDING * [0.5, 0.9, 1], STANDING * [0.5, 0.9, 1]
    right[:, :2] += [120, 10]
    both = np.maximum(draw_skeleton(left, SIZE, 3, 3), draw_skeleton(right, SIZE, 3, 3))
    with pytest.raises(InputError, match=r"duo.mp4: shows more than one skeleton in 3 of 3 frames: draw one person alone"):
        read_skeletons("duo.mp4", [both] * 3, 0.5)


def test_too_few_skeletons_or_frames_are_refused():
    one, black = draw_skeleton(STANDING, SIZE), np.zeros((SIZE, SIZE, 3), np.uint8)
    with pytest.raises(InputError, match=r"a.mp4: a skeleton was found in 1 of 3 frames, preprocess.min_detected asks for 50%: draw 18 joints"):
        read_skeletons("a.mp4", [one, black, black], 0.5)
    assert read_skeletons("a.mp4", [one, one, black], 0.5)[2].max() == 0
    with pytest.raises(InputError, match="number of frames is 1, at least 2 are needed"):
        read_skeletons("a.mp4", [one], 0.5)


def test_other_pictures_are_no_drawings():
    blocks = np.repeat(np.repeat(np.arange(25).reshape(5, 5), 20, 0), 20, 1)
    stripes = np.zeros((2, 128, 128, 3), np.uint8)
    stripes[:, :10] = [255, 0, 0]
    for frames in (np.stack([PALETTE[blocks]] * 2), pattern(2, 64, 64), np.zeros((2, 64, 64, 3), np.uint8), stripes):
        assert not is_skeleton_drawing(frames)
    one, black = draw_skeleton(STANDING, SIZE), np.zeros((SIZE, SIZE, 3), np.uint8)
    assert is_skeleton_drawing(np.stack([black, one, one]))
    assert not is_skeleton_drawing(np.stack([one, pattern(1, SIZE, SIZE)[0]]))


def test_a_real_drawing(real_data):
    frames = np.stack(list(read_frames(real_data / "moore_kps_2.mp4", 60)))
    assert is_skeleton_drawing(frames[::10])
    found = read_skeletons("moore_kps_2.mp4", frames, 0.5)
    body = found[:, 1:14]
    assert (body[..., 2] == 1).mean() > 0.97
    step = np.linalg.norm(np.diff(found[..., :2], axis=0), axis=-1)
    known = (found[1:, :, 2] > 0) & (found[:-1, :, 2] > 0)
    slow = [1, 2, 5, 8, 9, 10, 11, 12, 13]  # neck, shoulders, hips and legs; hands are fast
    assert (step * known)[:, slow].max() < 40
    # Read off the first frame by eye, to two pixels.
    expected = {"neck": (249.5, 164.5), "right_shoulder": (191.5, 163.5), "left_elbow": (329.5, 271.5), "right_hip": (215.5, 352.5),
                "left_knee": (281.5, 520.5), "right_ankle": (232.5, 681.5)}  # fmt: skip
    for name, point in expected.items():
        assert np.linalg.norm(found[0, OPENPOSE18.index(name), :2] - point) < 2


@pytest.mark.parametrize("name", ["ma_densepose_dancing2.mp4", "single_person_demo.mp4"])
def test_other_real_videos_are_no_drawings(real_data, name):
    assert not is_skeleton_drawing(np.stack(list(read_frames(real_data / name, 4))))
