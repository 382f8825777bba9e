"""Keypoints from OpenPose's files, written here as OpenPose writes them."""

import json

import numpy as np
import pytest

from dpscale.data.types import OPENPOSE18, InputError
from dpscale.preprocess.openpose_json import follow_openpose, people_of, read_openpose

BODY_25 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist", "mid_hip", "right_hip",
    "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye", "right_ear", "left_ear", "left_big_toe",
    "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
)  # fmt: skip


def _write(folder, number, people, name="clip"):
    path = folder / f"{name}_{number:012d}_keypoints.json"
    path.write_text(json.dumps({"version": 1.3, "people": people}))
    return path


def _entry(keypoints, field="pose_keypoints_2d"):
    return {"person_id": [-1], field: np.asarray(keypoints, float).ravel().tolist(), "face_keypoints_2d": [], "hand_left_keypoints_2d": []}


def _figure(x, height=300.0, confidence=0.8):
    """18 keypoints of somebody who stands at x."""
    rng = np.random.default_rng(int(height))
    places = np.stack([x + rng.uniform(-0.2, 0.2, 18) * height, 400 + rng.uniform(-0.5, 0.5, 18) * height], 1)
    return np.concatenate([places, np.full((18, 1), confidence)], 1)


@pytest.mark.parametrize(("names", "field"), [(BODY_25, "pose_keypoints_2d"), (OPENPOSE18, "pose_keypoints_2d"), (OPENPOSE18, "pose_keypoints")])
def test_both_models_and_the_older_key_give_openpose18(tmp_path, names, field):
    numbers = np.stack([np.arange(len(names)) + 10.0, np.arange(len(names)) + 50.0, np.full(len(names), 0.5)], 1)
    _write(tmp_path, 0, [_entry(numbers, field)])
    (people,) = read_openpose(tmp_path, 1)
    assert people.shape == (1, 18, 3)
    np.testing.assert_array_equal(people[0, :, 0] - 10, [names.index(name) for name in OPENPOSE18])
    np.testing.assert_array_equal(people[0, :, 1] - 50, [names.index(name) for name in OPENPOSE18])


def test_frames_are_the_numbers_in_the_names(tmp_path):
    _write(tmp_path, 0, [_entry(_figure(100)), _entry(_figure(400, 200))])
    _write(tmp_path, 2, [])
    _write(tmp_path, 3, [_entry(_figure(110)), _entry(np.zeros((18, 3)))])
    _write(tmp_path, 7, [{"not": "read"}])
    (tmp_path / "notes.txt").write_text("")
    people = read_openpose(tmp_path, 5)
    assert [None if frame is None else len(frame) for frame in people] == [2, None, 0, 1, None]
    np.testing.assert_array_equal(people[0][1], _figure(400, 200))
    assert [None if frame is None else len(frame) for frame in read_openpose(tmp_path, 2, first_number=2)] == [0, 1]


def test_a_keypoint_not_found_is_zero_and_confidence_stays_in_range(tmp_path):
    figure = _figure(100)
    figure[3], figure[4, 2] = [0.3, 0.2, 0.0], 1.02
    _write(tmp_path, 0, [_entry(figure)])
    (people,) = read_openpose(tmp_path, 1)
    np.testing.assert_array_equal(people[0, 3], 0)
    assert people[0, 4, 2] == 1.0


def _two_people(folder, num_frames, missing=()):
    """The larger stands right and drifts; who comes first in the file changes."""
    for n in set(range(num_frames)) - set(missing):
        both = [_entry(_figure(450 + 3 * n)), _entry(_figure(120, 200.0))]
        _write(folder, n, both[:: 1 if n % 2 else -1])


def test_one_person_is_followed_whatever_the_order_in_the_files(tmp_path):
    _two_people(tmp_path, 8)
    track = follow_openpose(tmp_path, 8, 640, None, 0.5)
    np.testing.assert_allclose(track.keypoints, np.stack([_figure(450 + 3 * n) for n in range(8)]))
    assert track.found.all()
    assert track.note == "2 people in view: took the most prominent (person 1 of 2, right of the middle); --person 2 takes the other"
    other = follow_openpose(tmp_path, 8, 640, 2, 0.5)
    np.testing.assert_allclose(other.keypoints, np.stack([_figure(120, 200.0)] * 8))
    assert other.note is None
    assert len(people_of(read_openpose(tmp_path, 8), 640).everyone) == 2


def test_frames_without_a_file_are_interpolated_with_low_confidence(tmp_path):
    _two_people(tmp_path, 8, missing=(3, 4, 7))
    track = follow_openpose(tmp_path, 8, 640, None, 0.5)
    np.testing.assert_array_equal(track.found, [True, True, True, False, False, True, True, False])
    np.testing.assert_allclose(track.keypoints[3:5, :, :2], np.stack([_figure(450 + 3 * n)[:, :2] for n in (3, 4)]))
    np.testing.assert_array_equal(track.keypoints[7, :, :2], track.keypoints[6, :, :2])
    np.testing.assert_allclose(track.keypoints[[3, 4, 7], :, 2], 0.04)


def test_a_keypoint_is_interpolated_and_one_never_found_stays_with_the_body(tmp_path):
    for n in range(4):
        figure = _figure(300 + 6 * n)
        figure[9] = 0
        if n == 1:
            figure[4] = 0
        _write(tmp_path, n, [_entry(figure)])
    keypoints = follow_openpose(tmp_path, 4, 640, None, 1.0).keypoints
    np.testing.assert_allclose(keypoints[1, 4], [*_figure(306)[4, :2], 0.04])
    np.testing.assert_array_equal(keypoints[:, 9, 2], 0)
    others = np.delete(keypoints, 9, 1)[..., :2]
    assert (keypoints[:, 9, :2] > others.min(1)).all()
    assert (keypoints[:, 9, :2] < others.max(1)).all()


def test_too_few_frames_and_nobody_are_refused(tmp_path):
    _two_people(tmp_path, 3)
    with pytest.raises(InputError, match=r"person 2 is in 3 of 10 frames, preprocess.min_detected asks for 50%.*lower preprocess.min_detected"):
        follow_openpose(tmp_path, 10, 640, 2, 0.5)
    with pytest.raises(InputError, match=r"person = 5, with 2 people in view"):
        follow_openpose(tmp_path, 3, 640, 5, 0.5)
    for n in range(3):
        _write(tmp_path, n, [])
    with pytest.raises(InputError, match=f"{tmp_path.name}: no person was found"):
        follow_openpose(tmp_path, 3, 640, None, 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"clip_000000000000_keypoints.json: is not JSON"),
        ("[]", r"keypoints.json: people: a list is needed"),
        ('{"people": 3}', r"people: a list is needed"),
        ('{"people": [7]}', r"people\[0\]: has no pose_keypoints_2d"),
        ('{"people": [{"face_keypoints_2d": []}]}', r"people\[0\]: has no pose_keypoints_2d: write it again with"),
        ('{"people": [{"pose_keypoints_2d": ["a"]}]}', r"people\[0\].pose_keypoints_2d: must be a list of numbers"),
        ('{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}', r"people\[0\].pose_keypoints_2d: 3 numbers, where 75 \(BODY_25\) or 54 \(COCO\)"),
        ('{"people": [{"pose_keypoints": {"x": 1}}]}', r"people\[0\].pose_keypoints: must be a list of numbers"),
        (json.dumps({"people": [{"pose_keypoints_2d": [float("nan")] * 54}]}), r"people\[0\].pose_keypoints_2d: has a number that is not finite"),
        (json.dumps({"people": [{"pose_keypoints_2d": [0.5] * 54}]}), r"pose_keypoints_2d: places are parts of the picture, px are needed"),
    ],
)
def test_bad_files_name_file_field_and_remedy(tmp_path, text, message):
    (tmp_path / "clip_000000000000_keypoints.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_openpose(tmp_path, 1)


def test_bad_folders_name_the_remedy(tmp_path):
    with pytest.raises(InputError, match=r"gone: no such folder: give the folder that"):
        read_openpose(tmp_path / "gone", 1)
    with pytest.raises(InputError, match=r"holds no files named NAME_000000000000_keypoints.json"):
        read_openpose(tmp_path, 1)
    _write(tmp_path, 5, [_entry(_figure(100))])
    with pytest.raises(InputError, match="numbers in the file names are 5 to 5, none from 0 to 2"):
        read_openpose(tmp_path, 3)
    (tmp_path / "clip_5_keypoints.json").write_text("{}")
    with pytest.raises(InputError, match=r"clip_5_keypoints.json: has the same frame number as clip_000000000005_keypoints.json"):
        read_openpose(tmp_path, 9)
    _write(tmp_path, 5, [], name="other")
    with pytest.raises(InputError, match=r"files of several videos \(clip, other\)"):
        read_openpose(tmp_path, 9)
