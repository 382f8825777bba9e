"""Points of a space, and what is said of a space that cannot be searched."""

from __future__ import annotations

from typing import Any

import pytest

from dpscale.config.load import ConfigError, check
from dpscale.config.schema import Config
from dpscale.search.space import applied, domains, points, searched_videos, told


def config_of(space: dict[str, Any], searcher: dict[str, Any] | None = None, **joint: object) -> Config:
    return check({"joint": {"steps": 2000} | joint, "search": {"space": space, "searcher": searcher or {"kind": "grid"}}})


RANDOM, OPTUNA = {"kind": "random", "num_points": 50}, {"kind": "optuna"}


def test_a_grid_has_every_combination_in_order() -> None:
    found = points(config_of({"joint": {"refresh_interval": [500, 1000], "flow_weight": [0.5, 1.0]}}))
    assert found is not None
    pairs = [(point["joint.refresh_interval"], point["joint.flow_weight"]) for point in found]
    assert pairs == [(500, 0.5), (500, 1.0), (1000, 0.5), (1000, 1.0)]
    assert told(found[0]) == "joint.refresh_interval = 500, joint.flow_weight = 0.5"


def test_drawn_points_stay_in_their_ranges_and_follow_from_the_seed() -> None:
    space = {"joint": {"refresh_interval": {"min": 10, "max": 2000, "log": True}, "flow_weight": {"min": 0.5, "max": 2.0}}, "field": {"lr": [1e-3]}}
    config = config_of(space, RANDOM)
    found = points(config)
    assert found is not None
    intervals = [point["joint.refresh_interval"] for point in found]
    assert len(found) == 50
    assert all(isinstance(value, int) and 10 <= value <= 2000 for value in intervals)
    assert sum(value < 141 for value in intervals) == pytest.approx(25, abs=10), "half of them below the geometric mean"
    assert all(0.5 <= point["joint.flow_weight"] <= 2.0 for point in found)
    assert points(config) == found
    other = config.model_copy(update={"run": config.run.model_copy(update={"seed": 1})})
    assert points(other) != found


def test_a_trials_config_is_the_runs_with_its_settings_and_without_a_search() -> None:
    config = config_of({"joint": {"refresh_interval": [500]}})
    trial = applied(config, {"joint.refresh_interval": 500, "field.deformation_grid.n_levels": 4})
    assert trial.joint.refresh_interval == 500
    assert trial.field.deformation_grid.n_levels == 4
    assert trial.search == Config().search
    assert trial.joint.steps == 2000


WRONG = [
    ({"joint": {"refresh_intervall": [500]}}, None, r"there is no such setting; did you mean joint\.refresh_interval\?"),
    ({"jiont": {"refresh_interval": [500]}}, None, r"there is no such setting; did you mean joint"),
    ({}, None, r"search\.space is empty"),
    ({"joint": {"refresh_interval": []}}, None, r"search\.space\.joint\.refresh_interval: the list is empty"),
    ({"joint": {"refresh_interval": 500}}, None, r"must be a list of values, or a table of min and max"),
    ({"joint": {"refresh_interval": [500, 500]}}, None, "lists a value twice"),
    ({"joint": {"refresh_interval": [500, 4000]}}, None, r"joint\.refresh_interval = 4000 is longer than the run, joint\.steps = 2000"),
    ({"joint": {"refresh_interval": [0]}}, None, r"joint\.refresh_interval = 0: must be a whole number from 1"),
    ({"joint": {"flow_weight": {"min": 2.0, "max": 1.0}}}, RANDOM, r"the range from min = 2\.0 to max = 1\.0 is empty"),
    ({"joint": {"flow_weight": {"min": 2.0, "max": 2.0}}}, RANDOM, "is empty"),
    ({"joint": {"flow_weight": {"min": 2.0}}}, RANDOM, "max is missing"),
    ({"joint": {"flow_weight": {"min": 1, "max": 2, "step": 1}}}, RANDOM, "'step' is unknown"),
    ({"joint": {"flow_weight": {"min": "a", "max": 2}}}, RANDOM, "must be numbers"),
    ({"joint": {"flow_weight": {"min": 0.0, "max": 2.0, "log": True}}}, RANDOM, "needs min above 0"),
    ({"joint": {"flow_weight": {"min": 1.0, "max": 2000.0}}}, RANDOM, r"joint\.flow_weight = 2000\.0: must be a number from 0 to 1_000"),
    ({"joint": {"flow_weight": {"min": 1.0, "max": 2.0}}}, None, "a grid needs a list of values"),
    ({"run": {"seed": [1, 2]}}, None, r"search\.space\.run\.seed: is not searched; settings of joint, field, finetune"),
    ({"joint": {"background_flow": [True, False]}}, None, "is not searched"),
    ({"joint": {"method": ["ivr", "image"]}}, None, r"joint\.method = image has no representation"),
    ({"finetune": {"epochs": [5, 10]}}, OPTUNA, "models are finetuned before the trials"),
    ({"joint": {"refresh_interval": [100], "refresh_overlap": [100]}}, None, r"joint\.refresh_overlap = 100 must be below joint\.refresh_interval"),
]


@pytest.mark.parametrize(("space", "searcher", "said"), WRONG)
def test_a_space_that_cannot_be_searched_is_refused(space: dict[str, Any], searcher: dict[str, Any] | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        points(config_of(space, searcher))


def test_points_are_checked_as_a_whole() -> None:
    found = points(config_of({"joint": {"steps": [4000, 8000], "refresh_interval": [4000]}}))
    assert found is not None
    assert len(found) == 2


def test_optuna_suggests_its_points_itself() -> None:
    config = config_of({"joint": {"refresh_interval": {"min": 10, "max": 2000}}}, OPTUNA)
    assert points(config) is None
    assert list(domains(config.search)) == ["joint.refresh_interval"]


def test_only_videos_with_a_truth_are_searched() -> None:
    people = [{"kind": "rendered", "name": name, "performer_seed": 1} for name in ("ann", "ben")]
    drives = [{"kind": "self", "name": "self"}, {"kind": "motion", "name": "dance"}]
    assert [video.performer for video in searched_videos(check({"performers": people, "drives": drives}))] == ["ann", "ben"]
    with pytest.raises(ConfigError, match="add a drive of kind 'self'"):
        searched_videos(check({"performers": people, "drives": drives[1:]}))
    with pytest.raises(ConfigError, match=r"search\.trial_gpus = 0, but scheduler\.field_gpus = 0\.25"):
        searched_videos(check({"performers": people, "scheduler": {"field_gpus": 0.25, "refresh_gpus": 1.0}}))
    with pytest.raises(ConfigError, match="'ann' has a refresh_interval of its own"):
        searched_videos(check({"performers": people, "videos": [{"performer": "ann", "refresh_interval": 5}, {"performer": "ben"}]}))


def test_a_search_takes_no_predicted_interval() -> None:
    auto = {"refresh_interval": "auto", "refresh_interval_rule": "runs/search"}
    for space in ({"joint": {"flow_weight": [0.5]}}, {"joint": {"refresh_interval": [500]}}):
        with pytest.raises(ConfigError, match=r"joint\.refresh_interval = 'auto' is what a search finds a rule for"):
            points(config_of(space, **auto))
    with pytest.raises(ConfigError, match=r"search\.space\.joint\.refresh_interval: 'auto' cannot be tried"):
        points(config_of({"joint": {"refresh_interval": [500, "auto"]}}, refresh_interval_rule="runs/search"))


POPULATION = [
    ({"joint": {"refresh_interval": [500, 1000]}}, {}, {}, r"refresh_interval: cannot change on the way; .* takes joint\.flow_weight,"),
    ({"joint": {"flow_weight": [0.5, 1.0]}}, OPTUNA, {}, r"set search\.searcher\.kind = random or grid"),
    ({"joint": {"flow_weight": [0.5, 1.0]}}, {}, {"stop_l1": 1.0}, r"leave out joint\.changes and joint\.stop_l1"),
    ({"joint": {"flow_weight": [0.5, 1.0]}}, {}, {"changes": [{"from_step": 5, "strength_to": 0.2}]}, r"leave out joint\.changes"),
]


@pytest.mark.parametrize(("space", "searcher", "joint", "said"), POPULATION)
def test_a_population_changes_only_what_can_change_on_the_way(space: dict, searcher: dict, joint: dict, said: str) -> None:
    search = {"space": space, "searcher": searcher or {"kind": "grid"}, "stopping": {"kind": "pbt"}}
    with pytest.raises(ConfigError, match=said):
        points(check({"joint": {"steps": 2000} | joint, "search": search}))


def test_the_points_of_a_population_are_the_searchers() -> None:
    space = {"joint": {"flow_weight": {"min": 0.5, "max": 2.0}, "strength_to": [0.2, 0.3]}}
    found = points(check({"search": {"space": space, "searcher": RANDOM, "stopping": {"kind": "pbt"}}}))
    assert found is not None
    assert len(found) == 50
