from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dpscale.search.pareto import Tried, front, price, recommended


def test_the_front_is_what_nothing_beats() -> None:
    tried = [Tried(20, 10), Tried(22, 20), Tried(21, 20), Tried(21.5, 40), Tried(23, 80), Tried(20, 10)]
    assert front(tried) == [0, 1, 4]
    assert front([]) == []


def test_a_doubling_of_cost_must_bring_its_price() -> None:
    tried = [Tried(20.0, 10), Tried(20.2, 20), Tried(20.3, 40)]
    assert recommended(tried, 0.15) == 1
    assert recommended(tried, 0.05) == 2
    assert recommended(tried, 0.25) == 0
    assert recommended([], 0.1) is None
    assert price(8, 0.1) == 0.1 * 3


POINTS = st.lists(st.builds(Tried, st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=12)


@given(POINTS)
def test_every_point_is_on_the_front_or_beaten_by_one_of_it(tried: list[Tried]) -> None:
    found = front(tried)
    for n, one in enumerate(tried):
        beaten = [m for m in found if tried[m].quality >= one.quality and tried[m].cost <= one.cost and m != n]
        assert (n in found) != bool(beaten)
    assert recommended(tried, 0.1) in found
