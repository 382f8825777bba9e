from __future__ import annotations

import json
import tomllib
from pathlib import Path
from xml.etree import ElementTree

from dpscale.config.load import check, load
from dpscale.data.layout import RunLayout
from dpscale.search.record import Row, as_json, chosen, write_found

INTERVALS = (100, 200, 400)
CONFIG = {
    "performers": [{"kind": "rendered", "name": name, "performer_seed": 1} for name in ("ann", "ben")],
    "joint": {"steps": 400},
    "search": {"space": {"joint": {"refresh_interval": list(INTERVALS)}}},
}


def rows() -> list[Row]:
    """Ann's best is in the middle; her dearest was left behind with a better V_s. Of Ben's none finished."""
    ann = [(20.0, 80.0, False), (20.5, 40.0, True), (19.0, 20.0, True)]
    settings = [{"joint.refresh_interval": interval} for interval in INTERVALS]
    made = [Row("ann--self", n, settings[n], quality=q + 5 * (not e), cost=c, step=400 if e else 50, ended=e) for n, (q, c, e) in enumerate(ann)]
    return [*made, *(Row("ben--self", n, settings[n], error="no") for n in range(3))]


def test_only_finished_trials_are_recommended() -> None:
    choice = chosen(rows(), 0.1)
    assert choice["ann--self"].recommended == 1
    assert choice["ann--self"].front == [2, 1]
    assert choice["ben--self"].recommended is None
    assert chosen(rows(), 5.0)["ann--self"].recommended == 2
    told = as_json(rows(), choice)
    assert [row["status"] for row in told["rows"]] == ["left behind", "finished", "finished", "failed", "failed", "failed"]
    assert [row["recommended"] for row in told["rows"]] == [False, True, False, False, False, False]


def test_the_files_of_a_search(tmp_path: Path) -> None:
    config = check(CONFIG | {"run": {"root": str(tmp_path), "name": "r"}})
    layout = RunLayout.of(config)
    files = write_found(config, layout, rows(), chosen(rows(), 0.1))
    names = {path.name for path in files}
    assert names == {"result.json", "ann--self.toml", *(f"{video}--self-{plot}.svg" for video in ("ann", "ben") for plot in ("pareto", "response"))}
    assert json.loads((layout.search / "result.json").read_text())["recommended"] == {"ann--self": 1, "ben--self": None}
    own = load(layout.search / "ann--self.toml")
    assert own.joint.refresh_interval == 200
    assert [performer.name for performer in own.performers] == ["ann"]
    assert own.run.name == "r-ann--self"
    assert own.search == check({}).search, "what it takes is settings, not a search"
    assert tomllib.loads((layout.search / "ann--self.toml").read_text())["joint"]["steps"] == 400
    for path in files:
        if path.suffix == ".svg":
            circles = ElementTree.parse(path).getroot().findall("{http://www.w3.org/2000/svg}circle")
            assert len(circles) == (3 if "ann" in path.name else 0)


def test_without_intervals_there_is_no_response_to_plot_and_a_way_can_be_made_again(tmp_path: Path) -> None:
    config = check(CONFIG | {"run": {"root": str(tmp_path), "name": "r"}})
    changes = [{"from_step": 51, "flow_weight": 0.7}, {"from_step": 101, "strength_to": 0.25}]
    row = Row("ann--self", 0, {"joint.flow_weight": 0.5, "joint.changes": changes}, quality=20.0, cost=9.0, step=400, ended=True)
    layout = RunLayout.of(config)
    files = write_found(config, layout, [row], chosen([row], 0.1))
    assert {path.name for path in files} == {"result.json", "ann--self.toml", "ann--self-pareto.svg"}
    joint = load(layout.search / "ann--self.toml").joint
    assert [joint.at(step).flow_weight for step in (50, 51, 400)] == [0.5, 0.7, 0.7]
    assert joint.at(101).strength_to == 0.25
