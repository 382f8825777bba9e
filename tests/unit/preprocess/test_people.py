"""Several people in one video: who is who, who is meant; synthetic boxes, and real footage of one and of two people."""

import numpy as np
import pytest

from dpscale.config.sources import Pose2simPerformer
from dpscale.data.types import InputError
from dpscale.preprocess.blazepose import BlazePose
from dpscale.preprocess.decode import read_frames
from dpscale.preprocess.people import blazepose_people, choose_person, iou, landmark_box, track_people
from dpscale.preprocess.sources import footage_of

WIDTH = 640


def _box(x, y, width, height):
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def _scene(*people, order=None):
    """Boxes frame by frame; `people` are lists of a box or None a frame; rows in a random order."""
    rng, frames, truth = np.random.default_rng(0), [], []
    for boxes in zip(*people, strict=True):
        seen = [k for k, box in enumerate(boxes) if box is not None]
        rng.shuffle(seen)
        frames.append(np.array([boxes[k] for k in seen]).reshape(-1, 4))
        truth.append(seen)
    return frames, truth


def _identities(people, truth):
    """For each tracked person the true people that it consists of."""
    return [{truth[frame][row] for frame, row in zip(person.frames.tolist(), person.rows.tolist(), strict=True)} for person in people.everyone]


def _crossing(num_frames=41, sizes=((60, 180), (60, 180)), gap=()):
    """Two people who walk through the picture in opposite directions; the second is hidden in the frames `gap`."""
    x = np.linspace(100, 540, num_frames)
    first = [_box(at, 200, *sizes[0]) for at in x]
    second = [None if n in gap else _box(640 - at, 205, *sizes[1]) for n, at in enumerate(x)]
    return first, second


@pytest.mark.parametrize("sizes", [((60, 180), (60, 180)), ((90, 260), (50, 150))])
def test_two_people_who_cross_keep_their_identities(sizes):
    frames, truth = _scene(*_crossing(sizes=sizes))
    people = track_people(frames, WIDTH)
    assert sorted(_identities(people, truth), key=min) == [{0}, {1}]
    assert all(len(person.frames) == 41 for person in people.everyone)


@pytest.mark.parametrize("every", [2, 5])
def test_they_keep_them_when_looked_at_now_and_then(every):
    frames, truth = _scene(*_crossing(num_frames=81, sizes=((90, 260), (50, 150))))
    people = track_people([boxes if n % every == 0 else None for n, boxes in enumerate(frames)], WIDTH)
    assert sorted(_identities(people, truth), key=min) == [{0}, {1}]
    assert people.num_looked == len(range(0, 81, every))
    np.testing.assert_allclose(people.everyone[0].in_all_frames(81), np.stack(_crossing(81, ((90, 260), (50, 150)))[0]), atol=1e-9)


def test_one_hidden_behind_the_other_for_three_frames_is_found_again():
    frames, truth = _scene(*_crossing(gap=(19, 20, 21)))
    people = track_people(frames, WIDTH)
    assert sorted(_identities(people, truth), key=min) == [{0}, {1}]
    assert sorted(len(person.frames) for person in people.everyone) == [38, 41]


def test_who_comes_back_too_late_or_elsewhere_is_somebody_new():
    still = _box(300, 200, 60, 180)
    people = track_people([still[None]] * 10 + [np.zeros((0, 4))] * 6 + [still[None]] * 10, WIDTH, max_gap=5)
    assert [len(person.frames) for person in people.everyone] == [10, 10]
    elsewhere = track_people([still[None]] * 10 + [still[None] + 250.0] * 8, WIDTH)
    assert [len(person.frames) for person in elsewhere.everyone] == [10, 8]


def test_a_second_box_around_the_same_person_is_nobody():
    frames = [np.stack([_box(300, 200, 60, 180), _box(304, 198, 64, 170)])] * 6
    people = track_people(frames, WIDTH)
    assert len(people.everyone) == 1
    assert set(people.everyone[0].rows.tolist()) <= {0, 1}


def test_mistakes_of_a_few_frames_are_left_out():
    frames = [np.stack([_box(300, 200, 60, 180), _box(100, 100, 90, 190)][: 2 if n < 3 else 1]) for n in range(20)]
    assert len(track_people(frames, WIDTH).everyone) == 1


def test_the_most_prominent_is_large_for_long_and_then_central():
    small, large, short = _box(320, 200, 30, 90), _box(100, 200, 60, 180), _box(500, 240, 80, 200)
    frames = [np.stack([small, large, *([short] if n < 8 else [])]) for n in range(20)]
    order = [person.boxes[0] for person in track_people(frames, WIDTH).everyone]
    np.testing.assert_array_equal(order, [large, short, small])
    twins = track_people([np.stack([_box(60, 200, 60, 180), _box(300, 200, 60, 180)])] * 4, WIDTH)
    np.testing.assert_array_equal(twins.everyone[0].boxes[0], _box(300, 200, 60, 180))


def test_choosing_one():
    two = track_people([np.stack([_box(100, 200, 60, 180), _box(330, 200, 40, 120)])] * 4, WIDTH)
    first = choose_person("a.mp4", two, None)
    assert first.note == "2 people in view: took the most prominent (person 1 of 2, left of the middle); --person 2 takes the other"
    assert (choose_person("a.mp4", two, 1).note, choose_person("a.mp4", two, 2).number) == (None, 2)
    np.testing.assert_array_equal(choose_person("a.mp4", two, 2).person.boxes[0], _box(330, 200, 40, 120))
    one = track_people([_box(600, 200, 60, 180)[None]] * 2, WIDTH)
    assert choose_person("a.mp4", one, None).note is None
    three = track_people([np.stack([_box(x, 200, 60, 180) for x in (100, 330, 560)])] * 2, WIDTH)
    assert str(choose_person("a.mp4", three, None).note).endswith("--person 2 to 3 take the others")


def test_who_is_not_there_is_refused_with_a_list():
    frames = [np.stack([_box(500, 200, 60, 180), *([_box(330, 200, 40, 120)] if n % 2 else [])]) for n in range(4)]
    people = track_people(frames, WIDTH)
    expected = (
        r"a.mp4: person = 3, with 2 people in view: 1 \(right of the middle, in 100% of the frames\), 2 \(in the middle, in 50% of the frames\): "
        "give a number from 1 to 2"
    )
    for number in (3, 0):
        with pytest.raises(InputError, match=expected.replace("= 3", f"= {number}")):
            choose_person("a.mp4", people, number)
    for nobody in ([], [None, None], [np.zeros((0, 4))] * 3):
        with pytest.raises(InputError, match=r"a.mp4: no person was found"):
            choose_person("a.mp4", track_people(nobody, WIDTH), None)


def test_overlap_and_boxes_of_landmarks():
    a = np.array([[0, 0, 10, 10.0]])
    np.testing.assert_allclose(iou(a, np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30.0]])), [[1, 1 / 3, 0]], atol=1e-9)
    points = np.array([[0, 0, 1], [50, 100, 1], [400, 400, 0.1]])
    np.testing.assert_allclose(landmark_box(points), [-8, -8, 58, 108])


def _real(path, num_frames, every=3):
    return blazepose_people(read_frames(path, num_frames, 1280), BlazePose(), every)


def test_the_balancing_man_is_chosen_not_the_assistant():
    video = footage_of(Pose2simPerformer(name="man", camera="cam02")).path
    sightings = _real(video, 8)
    assert [boxes is not None for boxes in sightings.boxes] == [True, False, False, True, False, False, True, False]
    choice = choose_person("cam02", track_people(sightings.boxes, sightings.width), None)
    boxes, assistant = choice.person.in_all_frames(8), np.array([530.0, 450.0])
    assert len(choice.person.frames) == 3
    assert (boxes[:, 3] - boxes[:, 1]).min() > 0.3 * 1280
    assert np.linalg.norm((boxes[:, :2] + boxes[:, 2:]) / 2 - assistant, axis=1).min() > 120


def test_two_real_people_are_two_people():
    video = footage_of(Pose2simPerformer(name="man", camera="cam04")).path.parents[2] / "Demo_MultiPerson" / "videos" / "cam04.mp4"
    sightings = _real(video, 9)
    people = track_people(sightings.boxes, sightings.width)
    assert [len(person.frames) for person in people.everyone] == [3, 3]
    man, woman = (person.boxes.mean(0) for person in people.everyone)
    assert man[0] < woman[0]
    assert all(len(rois) == 2 for rois in sightings.rois if rois is not None)
    assert "--person 2 takes the other" in str(choose_person("cam04", people, None).note)
