from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dpscale.evaluate.video_files import contact_sheet, evenly, pose_pictures, write_png
from tests.unit.evaluate.clips import SIZE, moving_pose


def test_png_is_lossless(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), picture)


def test_pose_pictures_colour_the_body_and_leave_the_rest_black():
    pose = moving_pose(3)
    pictures = pose_pictures(pose)
    assert pictures.shape == (3, SIZE, SIZE, 3)
    far = np.ones((SIZE, SIZE), bool)
    far[10:22] = False
    assert (pictures[:, far] == 0).all()
    assert (pictures[pose.iuv[..., 0] > 0].sum(-1) > 0).all()


def test_keypoints_that_are_not_numbers_are_not_drawn():
    pose = moving_pose(2)
    pose.keypoints[:] = np.nan
    pictures = pose_pictures(pose)
    assert (pictures[pose.iuv[..., 0] == 0] == 0).all()


def test_contact_sheet_shows_the_frames_that_it_names():
    red, green = np.zeros((20, 16, 16, 3), np.uint8), np.zeros((20, 16, 16, 3), np.uint8)
    red[..., 0] = np.arange(20)[:, None, None] * 10
    green[..., 1] = 200
    sheet = contact_sheet({"reference": green[:1], "made": red}, columns=4, cell_px=32)
    label = 72
    first, last = label + 4 + 16, label + 4 + 3 * 36 + 16
    assert sheet[20 + 16, first].tolist() == [0, 200, 0]
    assert sheet[20 + 16, last].tolist() == [255, 255, 255]  # the reference is there once
    assert sheet[20 + 36 + 16, last].tolist() == [190, 0, 0]


@pytest.mark.parametrize(("length", "count", "expected"), [(10, 4, [0, 3, 6, 9]), (3, 8, [0, 1, 2]), (1, 4, [0])])
def test_evenly_includes_both_ends(length, count, expected):
    assert evenly(length, count).tolist() == expected
