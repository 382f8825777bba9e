from __future__ import annotations

import itertools

import pytest

from dpscale.search.halving import Entrant, Halving, Stretch, rungs

QUALITY = {0: 20.0, 1: 21.0, 2: 22.0, 3: 23.0, 4: 24.0}


def entrants(video: str = "a", prices: tuple[float, ...] = (0.0,) * 5, same: tuple[int, ...] = ()) -> list[Entrant]:
    """Five points in three rungs; those in `same` are one state at the first."""
    first = ["same" if point in same else str(point) for point in range(5)]
    return [Entrant(video, point, prices[point], (first[point], str(point), str(point))) for point in range(5)]


def finished(race: Halving, quality: dict[int, float | None], order: int = 0) -> dict[tuple[str, int], int]:
    """Runs everything, several stretches at once; how far each trial came."""
    reached, running = {}, []
    while not race.exhausted:
        while len(running) < 3 and (stretch := race.next()) is not None:
            running.append(stretch)
        stretch = running.pop(order % len(running))
        reached[stretch.video, stretch.point] = stretch.rung
        race.done(stretch, quality[stretch.point])
    return reached


def test_rungs_lie_a_reduction_apart_and_before_the_end() -> None:
    assert rungs(2000, 0.125, 3) == [250, 750]
    assert rungs(2000, 0.5, 2) == [1000]
    assert rungs(3, 0.125, 3) == [1]
    assert rungs(1, 0.5, 2) == []


@pytest.mark.parametrize("order", range(3))
def test_the_better_go_on_whoever_comes_first(order: int) -> None:
    reached = finished(Halving(entrants(), 3, 2.0), dict(QUALITY), order)
    assert reached == {("a", 0): 0, ("a", 1): 0, ("a", 2): 1, ("a", 3): 2, ("a", 4): 3}


def test_without_rungs_every_trial_ends() -> None:
    assert set(finished(Halving(entrants(), 0, 2.0), dict(QUALITY)).values()) == {0}


def test_a_price_is_taken_from_the_quality() -> None:
    reached = finished(Halving(entrants(prices=(0, 0, 0, 9, 9)), 3, 5.0), dict(QUALITY))
    assert max(reached, key=lambda trial: reached[trial]) == ("a", 2)


def test_states_that_are_not_yet_different_go_on_together() -> None:
    """One of four states goes on, with both trials that stand in it: a price cannot decide between them yet."""
    quality = dict(QUALITY) | {0: 30.0, 1: 30.0}
    reached = finished(Halving(entrants(prices=(0, 1, 0, 0, 0), same=(0, 1)), 3, 4.0), quality)
    assert reached == {("a", 0): 3, ("a", 1): 1, ("a", 2): 0, ("a", 3): 0, ("a", 4): 0}


def test_a_trial_that_fails_is_out_and_holds_nobody_up() -> None:
    for failed in range(5):
        reached = finished(Halving(entrants(), 3, 2.0), dict(QUALITY) | {failed: None})
        best = 4 if failed != 4 else 3
        assert reached["a", best] == 3
        assert reached["a", failed] == 0
    assert finished(Halving(entrants(), 3, 2.0), dict.fromkeys(range(5))) == {("a", point): 0 for point in range(5)}


def test_videos_race_apart_and_take_turns() -> None:
    race = Halving([*entrants("a"), *entrants("b")], 3, 2.0)
    first = list(itertools.islice(iter(race.next, None), 4))
    assert [stretch.video for stretch in first] == ["a", "b", "a", "b"]
    assert first[0] == Stretch("a", 0, 0)
    for stretch in first:
        race.done(stretch, QUALITY[stretch.point])
    reached = finished(race, dict(QUALITY))
    assert {video for (video, _), rung in reached.items() if rung == 3} == {"a", "b"}


def test_nothing_is_ready_while_a_rung_is_not_full() -> None:
    race = Halving(entrants(), 3, 2.0)
    stretches = list(iter(race.next, None))
    assert len(stretches) == 5
    for stretch in stretches[:-1]:
        race.done(stretch, QUALITY[stretch.point])
        assert race.next() is None
    assert not race.exhausted
    race.done(stretches[-1], QUALITY[4])
    assert race.next() == Stretch("a", 2, 1)


def test_the_cheapest_is_never_left_behind() -> None:
    reached = finished(Halving(entrants(prices=(1.0, 0.5, 2.0, 2.0, 2.0)), 3, 5.0), dict(QUALITY))
    assert reached == {("a", 0): 0, ("a", 1): 3, ("a", 2): 0, ("a", 3): 0, ("a", 4): 3}
