from __future__ import annotations

from xml.etree import ElementTree

from dpscale.search.plots import pareto_plot, response_plot
from dpscale.search.record import Chosen, Row

_SVG = "{http://www.w3.org/2000/svg}"
ROWS = [
    Row("<a>", n, {"joint.refresh_interval": 100 * 2**n}, quality=quality, cost=80 / 2**n, ended=n > 0)
    for n, quality in enumerate((20.0, 22.0, 21.0))
]


def circles(svg: str) -> list[dict[str, str]]:
    return [circle.attrib for circle in ElementTree.fromstring(svg).findall(f"{_SVG}circle")]


def test_places_follow_quality_and_interval() -> None:
    found = circles(response_plot("<a>", ROWS, Chosen([2, 1], 1)))
    x, y = ([float(circle[name]) for circle in found] for name in ("cx", "cy"))
    assert x == sorted(x)
    assert abs((x[1] - x[0]) - (x[2] - x[1])) < 0.2, "doublings are equally far apart"
    assert y[1] < y[2] < y[0], "more is higher up"


def test_colours_tell_the_recommended_and_the_front_and_hollow_ones_were_left_behind() -> None:
    found = circles(pareto_plot("<a>", ROWS, Chosen([2, 1], 1)))
    assert len({circle["stroke"] for circle in found}) == 3
    assert [circle["fill"] == "white" for circle in found] == [True, False, False]


def test_one_point_and_none_are_drawn_too() -> None:
    assert len(circles(pareto_plot("a", ROWS[1:2], Chosen([1], 1)))) == 1
    assert circles(pareto_plot("a", [], Chosen([], None))) == []
