from __future__ import annotations

from dpscale.search.halving import Stretch
from dpscale.search.space import Range
from dpscale.search.studies import Studies

SPACE = {"joint.refresh_interval": (400, 100, 200), "joint.flow_weight": Range(0.1, 10.0, log=True), "field.adam": ("lazy", "dense")}
VIDEOS = ("a", "b")


def studies(num_points: int = 30, seed: int = 0) -> Studies:
    return Studies(VIDEOS, SPACE, num_points, seed)


def worth(stretch: Stretch) -> tuple[float, float]:
    """Best near a flow weight of 1; short intervals are a little better and cost more."""
    interval, weight = stretch.settings["joint.refresh_interval"], stretch.settings["joint.flow_weight"]
    return -abs(weight - 1) - interval / 1000, 1000 / interval


def run(source: Studies, most: int = 1000) -> list[Stretch]:
    seen = []
    while not source.exhausted and len(seen) < most:
        stretch = source.next()
        assert stretch is not None
        seen.append(stretch)
        source.done(stretch, *worth(stretch))
    return seen


def test_points_are_of_the_space_and_as_many_as_asked_for_of_each_video() -> None:
    seen = run(studies(8))
    assert sorted((one.video, one.point) for one in seen) == [(video, point) for video in VIDEOS for point in range(8)]
    assert {one.settings["joint.refresh_interval"] for one in seen} <= {100, 200, 400}
    assert {one.settings["field.adam"] for one in seen} == {"lazy", "dense"}
    assert all(0.1 <= one.settings["joint.flow_weight"] <= 10 for one in seen)


def test_later_points_lie_nearer_the_good_ones() -> None:
    seen = [one for one in run(studies(60)) if one.video == "a"]
    away = [abs(one.settings["joint.flow_weight"] - 1) for one in seen]
    assert sum(away[-30:]) < 0.7 * sum(away[:15]) * 2


def test_the_same_events_give_the_same_points() -> None:
    first = run(studies(20))
    again = studies(20)
    for one in first[:25]:
        assert again.take(one.video, one.point).settings == one.settings
        again.done(one, *worth(one))
    assert [one.settings for one in run(again)] == [one.settings for one in first[25:]]
    assert [one.settings for one in run(studies(20, seed=1))] != [one.settings for one in first]


def test_failures_and_points_at_work_hold_nobody_up() -> None:
    source = studies(2)
    stretches = [source.next() for _ in range(4)]
    assert source.next() is None
    assert not source.exhausted
    for stretch in stretches:
        assert stretch is not None
        source.done(stretch, None, 0.0)
    assert source.exhausted
