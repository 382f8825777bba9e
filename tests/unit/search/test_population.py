from __future__ import annotations

from collections.abc import Callable

import pytest

from dpscale.config.schema import JointConfig, PopulationStopping
from dpscale.search.halving import Stretch
from dpscale.search.population import Population, exchanges
from dpscale.search.space import CHANGES, Range, told

SPACE = {"joint.flow_weight": Range(0.5, 2.0, log=True), "joint.strength_to": (0.2, 0.3, 0.4)}
POINTS = [{"joint.flow_weight": weight, "joint.strength_to": 0.3} for weight in (0.5, 0.8, 1.2, 2.0)]
STEPS = [25, 50, 75]


def population(videos: tuple[str, ...] = ("a",), seed: int = 0, **how: float) -> Population:
    return Population(videos, POINTS, STEPS, PopulationStopping(**how), SPACE, 0.1, seed)


def weight_of(stretch: Stretch) -> float:
    """In force at its end."""
    changes = stretch.settings.get(CHANGES, ())
    return changes[-1]["flow_weight"] if changes else stretch.settings["joint.flow_weight"]


def finished(source: Population, quality: Callable[[Stretch], float | None], order: int = 0) -> list[Stretch]:
    """Runs everything, several stretches at once; all stretches, in order of rung, video and member."""
    found, running = [], []
    while not source.exhausted:
        while len(running) < 3 and (stretch := source.next()) is not None:
            running.append(stretch)
        stretch = running.pop(order % len(running))
        found.append(stretch)
        source.done(stretch, quality(stretch), 10.0)
    return sorted(found, key=lambda stretch: (stretch.rung, stretch.video, stretch.point))


def told_whole(found: list[Stretch]) -> list[tuple]:
    """With the settings, which stretches are not compared by."""
    return [(stretch.video, stretch.point, stretch.rung, stretch.settings) for stretch in found]


def test_exchanges_divide_the_run() -> None:
    assert exchanges(100, 0.25) == [25, 50, 75]
    assert exchanges(24, 0.2) == [5, 10, 14, 19]
    assert exchanges(2, 0.3) == [1]
    assert exchanges(1, 0.5) == []


def test_the_worst_goes_on_from_the_best_under_other_settings() -> None:
    found = finished(population(drawn_anew=0.0), weight_of)
    assert [stretch.rung for stretch in found] == [n for n in range(4) for _ in range(4)]
    first, second = found[:4], found[4:8]
    assert [stretch.settings for stretch in first] == POINTS
    assert [stretch.settings for stretch in second[1:]] == POINTS[1:], "who is not among the worst goes on as before"
    replaced = second[0].settings
    assert {**replaced, CHANGES: ()} == {**POINTS[3], CHANGES: ()}, "up to the exchange its way is the best one's"
    (change,) = replaced[CHANGES]
    assert change["from_step"] == 26
    assert change["flow_weight"] == pytest.approx(2.0 / 1.2) or change["flow_weight"] == 2.0
    assert change["strength_to"] in (0.2, 0.4)
    assert JointConfig(steps=100, refresh_interval=50, changes=replaced[CHANGES]).at(26).flow_weight == change["flow_weight"]


def test_ways_grow_and_values_stay_in_the_space() -> None:
    for drawn_anew in (0.0, 0.5, 1.0):
        found = finished(population(replaced=0.5, factor=3.0, drawn_anew=drawn_anew), weight_of)
        last = [stretch.settings for stretch in found if stretch.rung == 3]
        assert max(len(settings.get(CHANGES, ())) for settings in last) >= 2
        for change in (change for settings in last for change in settings.get(CHANGES, ())):
            assert 0.5 <= change["flow_weight"] <= 2.0
            assert change["strength_to"] in SPACE["joint.strength_to"]


@pytest.mark.parametrize("order", range(3))
def test_what_happens_depends_neither_on_speed_nor_on_a_restart(order: int) -> None:
    expected = finished(population(("a", "b"), replaced=0.5), weight_of)
    assert told_whole(finished(population(("a", "b"), replaced=0.5), weight_of, order)) == told_whole(expected)
    again = population(("a", "b"), replaced=0.5)
    for stretch in expected[:13]:  # as a restored searcher tells it
        assert told_whole([again.take(stretch.video, stretch.point)]) == told_whole([stretch])
        again.done(stretch, weight_of(stretch), 10.0)
    assert told_whole(finished(again, weight_of, order)) == told_whole(expected[13:])
    assert told_whole(finished(population(("a", "b"), replaced=0.5, seed=1), weight_of)) != told_whole(expected)


def test_videos_exchange_among_themselves() -> None:
    """What is best for one is worst for the other."""
    found = finished(population(("a", "b"), drawn_anew=0.0), lambda stretch: weight_of(stretch) * (1 if stretch.video == "a" else -1))
    second = {(stretch.video, stretch.point): stretch.settings for stretch in found if stretch.rung == 1}
    assert second["a", 0]["joint.flow_weight"] == 2.0
    assert second["b", 3]["joint.flow_weight"] == 0.5
    assert CHANGES not in second["a", 3]


def test_a_member_that_fails_is_out_and_holds_nobody_up() -> None:
    found = finished(population(), lambda stretch: None if stretch.point in (1, 2, 3) else 1.0)
    assert [(stretch.rung, stretch.point) for stretch in found] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (2, 0), (3, 0)]
    assert not [stretch for stretch in finished(population(), lambda _: None) if stretch.rung > 0]


def test_a_way_is_told_in_words() -> None:
    way = {"joint.flow_weight": 0.5, CHANGES: [{"from_step": 26, "flow_weight": 1 / 3}, {"from_step": 51, "flow_weight": 1, "strength_to": 0.4}]}
    assert told(way) == "joint.flow_weight = 0.5; from step 26: flow_weight = 0.3333; from step 51: flow_weight = 1, strength_to = 0.4"
