"""BlazePose on ai-edge-litert: the parts that are ours, and the networks on a rendered performer with exact truth."""

import numpy as np
import pytest

from dpscale.body.rendered import render_performer
from dpscale.data.types import InputError
from dpscale.preprocess import blazepose
from dpscale.preprocess.blazepose import BlazePose, Roi


@pytest.fixture(scope="module")
def standing():
    return render_performer(1_000_003, "walk", 1, 10.0, 192, 1, yaw=0.0)


def test_a_cut_is_where_the_region_says():
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[30:34, 60:64] = 255
    roi = Roi(x=50.0, y=40.0, side=64.0, angle=0.4)
    rows, columns = np.nonzero(roi.cut(picture, 64)[..., 0] > 100)
    back = roi.to_picture((np.array([columns.mean(), rows.mean()]) + 0.5) / 64 - 0.5)
    np.testing.assert_allclose(back, [62, 32], atol=0.3)
    np.testing.assert_allclose(roi.to_picture(roi.from_picture(back)), back)


def test_boxes_of_one_person_form_one_group():
    corners = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [0, 1, 10, 11.0]])
    groups = blazepose._grouped(corners, np.array([0.7, 0.9, 0.8, 0.6]))
    assert [sorted(g.tolist()) for g in groups] == [[0, 1, 3], [2]]


def test_a_heatmap_pulls_a_point_to_its_peak():
    heat = np.zeros((64, 64, 39))
    heat[20, 31, 0] = heat[20, 30, 0] = 0.9
    points = np.full((39, 2), 0.5)
    points[0] = [29 / 64, 21 / 64]
    refined = blazepose._refined(points, heat)
    np.testing.assert_allclose(refined[0], [30.5 / 64, 20 / 64])
    np.testing.assert_array_equal(refined[1:], points[1:])


def test_landmarks_of_a_rendered_performer_lie_near_the_truth(standing):
    networks = BlazePose()
    reading = networks.read(standing.frames[0], networks.detect(standing.frames[0])[0])
    ankles_knees_hips = [28, 27, 26, 25, 24, 23]
    truth = standing.pose.keypoints[0][[10, 13, 9, 12, 8, 11], :2]
    found = reading.landmarks[ankles_knees_hips, :2]
    either = np.minimum(np.linalg.norm(found - truth, axis=1), np.linalg.norm(found[[1, 0, 3, 2, 5, 4]] - truth, axis=1))
    assert np.median(either) < 0.03 * 192  # left and right may be exchanged in one picture; sides.py takes care of that
    assert reading.world.shape == (33, 3)
    assert 0 <= reading.silhouette.min() <= reading.silhouette.max() <= 1


def test_the_larger_of_two_people_comes_first(standing):
    far = standing.frames[0][::2, ::2]
    both = np.full((192, 320, 3), 128, np.uint8)
    both[:, :192], both[90:186, 210:306] = standing.frames[0], far
    people = BlazePose().detect(both)
    assert people[0].x < 192
    assert all(person.side <= people[0].side for person in people)


def test_nobody_is_found_in_noise():
    assert BlazePose().detect(np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)) == []


def test_missing_networks_name_the_remedy(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="make setup"):
        blazepose.network_files()
