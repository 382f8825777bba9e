"""Following one person: rendered, real, lost for a while, and nobody."""

import numpy as np
import pytest

from dpscale.body.rendered import render_performer
from dpscale.config.sources import Pose2simPerformer
from dpscale.data.types import InputError
from dpscale.preprocess.blazepose import BlazePose
from dpscale.preprocess.decode import probe, read_frames
from dpscale.preprocess.keypoints import PersonTrack, track_person
from dpscale.preprocess.sources import footage_of


@pytest.fixture(scope="module")
def rendered():
    return render_performer(1_000_003, "walk", 6, 10.0, 192, 1, yaw=0.0)


def test_a_rendered_walk_is_followed(rendered):
    track = track_person("walk", rendered.frames, BlazePose(), 0.5)
    assert track.found.all()
    miss = np.linalg.norm(track.openpose18()[:, 1:14, :2] - rendered.pose.keypoints[:, 1:14, :2], axis=-1)
    assert np.median(miss) < 0.03 * 192


def test_frames_without_the_person_are_interpolated_with_low_confidence(rendered):
    frames = rendered.frames.copy()
    frames[2:4] = 90
    track = track_person("walk", frames, BlazePose(), 0.5)
    np.testing.assert_array_equal(track.found, [True, True, False, False, True, True])
    step = (track.landmarks[4, :, :2] - track.landmarks[1, :, :2]) / 3
    np.testing.assert_allclose(track.landmarks[2, :, :2], track.landmarks[1, :, :2] + step)
    assert track.landmarks[2:4, :, 2].max() <= 0.05


def test_scale_gives_px_of_the_full_picture(rendered):
    networks = BlazePose()
    once, twice = (track_person("walk", rendered.frames[:2], networks, 0.5, scale) for scale in (1.0, 2.0))
    np.testing.assert_allclose(twice.landmarks[..., :2], 2 * once.landmarks[..., :2])
    np.testing.assert_array_equal(twice.landmarks[..., 2], once.landmarks[..., 2])


def test_too_few_frames_with_a_person_are_refused(rendered):
    empty = np.full((4, 96, 96, 3), 90, np.uint8)
    with pytest.raises(InputError, match=r"clip.mp4: no person was found, preprocess.min_detected asks for 50% of the frames"):
        track_person("clip.mp4", empty, BlazePose(), 0.5)
    mostly_empty = np.concatenate([rendered.frames[:1], np.full((5, 192, 192, 3), 90, np.uint8)])
    with pytest.raises(InputError, match="found in 1 of 6 frames"):
        track_person("clip.mp4", mostly_empty, BlazePose(), 0.5)
    with pytest.raises(InputError, match="number of frames is 1, at least 2"):
        track_person("clip.mp4", rendered.frames[:1], BlazePose(), 0.5)


def test_openpose_order_and_the_neck():
    landmarks = np.zeros((1, 33, 3))
    landmarks[0, :, 0], landmarks[0, :, 2] = np.arange(33), 1.0
    landmarks[0, 12, 2] = 0.25
    points = PersonTrack(landmarks, np.zeros((1, 33, 3)), np.ones(1, bool), (None,), 1.0).openpose18()[0]
    np.testing.assert_array_equal(points[:, 0], [0, 11.5, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7])
    assert points[1, 2] == 0.25


def _follow(path, num_frames):
    info = probe(path)
    return info, track_person(str(path), read_frames(path, num_frames, 640), BlazePose(), 0.5, max(info.height, info.width) / 640)


def test_the_man_in_front_is_followed_not_the_assistant():
    info, track = _follow(footage_of(Pose2simPerformer(name="man")).path, 8)
    torso = track.landmarks[:, [11, 12, 23, 24], :2].mean(1)
    assert track.found.all()
    assert (track.landmarks[:, 11, 0] > track.landmarks[:, 12, 0]).all()  # he faces the camera in every frame
    assert np.ptp(track.landmarks[..., 1], axis=1).min() > 0.3 * info.height
    assert np.abs(np.diff(torso, axis=0)).max() < 0.05 * info.height


def test_the_ball_player_is_found_in_every_frame(real_data):
    _, track = _follow(real_data / "single_person_demo.mp4", 6)
    assert track.found.all()
