"""Who is in a video: kept on disk to the bit; drawings are told from people."""

import numpy as np
import pytest

from dpscale.body.rendered import render_performer
from dpscale.config.schema import PreprocessConfig
from dpscale.data.types import InputError
from dpscale.preprocess.blazepose import BlazePose
from dpscale.preprocess.densepose_colour import PALETTE
from dpscale.preprocess.fitted import FittedBody, fit_person, load_body_of, save_body
from dpscale.preprocess.footage import Footage
from dpscale.preprocess.person import find_driver, find_person, load_person, save_person
from dpscale.preprocess.sources import write_h264
from tests.unit.preprocess.skeleton_pictures import draw_skeleton
from tests.unit.preprocess.videos import write_video

SETTINGS = PreprocessConfig(size=64, fit_steps=4)


@pytest.fixture(scope="module")
def clip():
    return render_performer(1_000_003, "walk", 5, 10.0, 256, 1, yaw=0.0, with_flow=False)


@pytest.fixture(scope="module")
def walk(clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("walk") / "walk.mp4"
    write_h264(path, clip.frames, 10.0)
    return find_person(Footage(path), 100, None, SETTINGS, BlazePose())


def test_a_found_person_comes_back_to_the_bit(walk, tmp_path):
    save_person(tmp_path / "walk.npz", walk)
    back = load_person(tmp_path / "walk.npz")
    assert (back.info, back.note, back.track.scale, back.track.silhouettes) == (walk.info, "", walk.track.scale, walk.track.silhouettes)
    for name in ("landmarks", "world", "found"):
        np.testing.assert_array_equal(getattr(back.track, name), getattr(walk.track, name))


def test_a_fitted_body_comes_back_to_the_bit(walk, tmp_path):
    body = fit_person(walk, SETTINGS)
    save_body(tmp_path / "body.npz", body)
    back: FittedBody = load_body_of(tmp_path / "body.npz")
    assert (back.crop, back.movement.fps, back.movement.motion.center_px) == (body.crop, body.movement.fps, body.movement.motion.center_px)
    np.testing.assert_array_equal(back.movement.motion.rotations, body.movement.motion.rotations)
    for name in ("betas", "log_scales", "girths"):
        np.testing.assert_array_equal(getattr(back.movement.shape, name), getattr(body.movement.shape, name))


def test_a_person_who_is_not_there_cannot_be_chosen(clip, tmp_path):
    write_h264(tmp_path / "walk.mp4", clip.frames, 10.0)
    with pytest.raises(InputError, match=r"person = 2, with 1 person in view"):
        find_person(Footage(tmp_path / "walk.mp4"), 100, 2, SETTINGS, BlazePose())


def test_a_skeleton_drawing_drives_with_the_person_it_shows(clip, tmp_path):
    write_h264(tmp_path / "drawn.mp4", np.stack([draw_skeleton(points, 256) for points in clip.pose.keypoints]), 10.0)
    found = find_driver(Footage(tmp_path / "drawn.mp4"), 100, None, SETTINGS, BlazePose())
    assert found.note.startswith("a skeleton drawing")
    miss = np.linalg.norm(found.track.openpose18()[:, 2:14, :2] - clip.pose.keypoints[:, 2:14, :2], axis=-1)
    assert np.median(miss) < 2.5
    assert fit_person(found, SETTINGS).movement.motion.root.shape == (5, 3)


def test_a_part_map_cannot_drive(clip, tmp_path):
    write_video(tmp_path / "parts.mp4", PALETTE[clip.pose.iuv[..., 0]])
    with pytest.raises(InputError, match=r"parts.mp4: is a DensePose part map: it tells no depth"):
        find_driver(Footage(tmp_path / "parts.mp4"), 100, None, SETTINGS, BlazePose())
