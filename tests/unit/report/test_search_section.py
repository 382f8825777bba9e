"""A search in the page, from the files that a search leaves."""

from __future__ import annotations

import base64
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dpscale.config.load import check
from dpscale.config.schema import Config
from dpscale.data.checkpoint import write_json
from dpscale.data.layout import RunLayout
from dpscale.report.page import write_report
from dpscale.report.search_section import search_section
from dpscale.search.record import Row, chosen, write_found
from dpscale.search.rule import Complexity, write_rule
from tests.unit.report.test_page import NASTY, Elements, record

INTERVALS = (100, 200, 400)


def rows() -> list[Row]:
    """Ann's dearest was left behind, her second is best; of Ben's none finished."""
    settings = [{"joint.refresh_interval": interval, "joint.flow_weight": 1 / 3} for interval in INTERVALS]
    ann = [(25.0, 80.0, False), (20.5, 40.0, True), (19.0, 20.0, True)]
    made = [
        Row("ann--self", n, settings[n], quality=q, psnr_body=q + 1, warp_error=8.0, cost=c, step=400 if e else 50, ended=e, field_s=4.0)
        for n, (q, c, e) in enumerate(ann)
    ]
    return [*made, *(Row("ben--self", n, settings[n], error=NASTY) for n in range(3))]


@pytest.fixture
def searched(tmp_path: Path) -> tuple[Config, RunLayout]:
    config = check(
        {
            "run": {"root": str(tmp_path), "name": "r"},
            "performers": [{"kind": "rendered", "name": name, "performer_seed": 1} for name in ("ann", "ben")],
            "joint": {"steps": 400},
            "search": {"space": {"joint": {"refresh_interval": list(INTERVALS)}}},
        }
    )
    layout = RunLayout.of(config)
    write_found(config, layout, rows(), chosen(rows(), 0.1))
    return config, layout


def text_of(config: Config, layout: RunLayout) -> str:
    return " ".join("".join(Elements(write_report(config, layout).read_text()).text).split())


def test_every_trial_has_its_row_and_the_recommended_one_is_marked(searched: tuple[Config, RunLayout]) -> None:
    config, layout = searched
    found = search_section(config, layout)
    assert found is not None
    assert (found.num_trials, found.num_failed) == (6, 3)
    ann, ben = found.videos
    assert [row.kind for row in ann.rows] == ["other", "recommended", "front"]
    assert ann.rows[0].status == "left behind at step 50"
    assert ann.rows[1].numbers == ["20.50", "21.50", "8.00", "40.00", "4.00"]
    assert ann.recommended == ann.rows[1]
    assert [row.kind for row in ben.rows] == ["failed"] * 3
    assert (ben.recommended, ben.toml) == (None, None)
    text = text_of(config, layout)
    for expected in ("6 trials of a search", "joint.flow_weight = 0.3333, joint.refresh_interval = 200", "nothing: no trial finished", NASTY):
        assert expected in text
    assert "dpscale personalize search/ann--self.toml" in text
    assert "refresh_interval = 200" in (ann.toml or "")


def test_plots_are_in_the_page_itself_and_it_needs_no_network(searched: tuple[Config, RunLayout]) -> None:
    config, layout = searched
    page = write_report(config, layout).read_text()
    pictures = [attrs for attrs in Elements(page).of("img") if attrs["src"].startswith("data:image/svg+xml;base64,")]
    assert [picture["alt"] for picture in pictures][:2] == ["ann--self: quality against the refresh interval", "ann--self: quality against cost"]
    assert len(pictures) == 4
    for picture in pictures:
        assert ElementTree.fromstring(base64.b64decode(picture["src"].split(",", 1)[1])).tag.endswith("svg")
    assert "http:" not in page
    assert "<script>alert" not in page


def test_videos_that_nobody_asked_for_are_left_out(searched: tuple[Config, RunLayout]) -> None:
    config, layout = searched
    assert "not finished" not in text_of(config, layout)
    write_json(layout.metrics(config.planned_videos()[0]), record())
    text = text_of(config, layout)
    assert "1 of 1 videos finished" in text
    assert "ann, held-out part" in text


@pytest.mark.parametrize(
    ("speeds", "intervals", "said"),
    [
        ((0.0, 1.0, 2.0, 3.0), (100, 200, 400, 800), "it has learnt something"),
        ((3.0, 0.0, 0.0, 3.0), (100, 200, 400, 800), "it has learnt nothing"),
        ((0.0, 1.0, 2.0, 3.0), (400, 400, 400, 400), "All 4 videos have the same recommended interval"),
    ],
)
def test_the_rule_says_whether_it_is_worth_anything(
    searched: tuple[Config, RunLayout], speeds: tuple[float, ...], intervals: tuple[int, ...], said: str
) -> None:
    config, layout = searched
    known = {name: Complexity(100, speed, 10.0) for name, speed in zip("abcd", speeds, strict=True)}
    write_rule(layout.rule, known, dict(zip("abcd", intervals, strict=True)), steps=800)
    assert said in text_of(config, layout)


def test_a_run_without_a_search_has_no_such_section(tmp_path: Path) -> None:
    config = check({"run": {"root": str(tmp_path)}})
    assert search_section(config, RunLayout.of(config)) is None
    assert 'id="search"' not in write_report(config, RunLayout.of(config)).read_text()
