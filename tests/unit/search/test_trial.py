"""Where trials live, what they share, and that a process judges what it has made."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from dpscale.config.load import check, resolved
from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from dpscale.evaluate.frame_metrics import dilated, psnr_body
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.refresh import RefreshService
from dpscale.joint.video import load_task
from dpscale.search.cost import cost
from dpscale.search.forking import ForkedRun
from dpscale.search.program import shared
from dpscale.search.space import points
from dpscale.search.trial import Trial, Trials, entrants, held_out_frames, relatives
from tests.ray.test_optimize_on_ray import VIDEOS, make_config, write_inputs
from tests.small_performer import small_model
from tests.unit.joint.small_video import bits

INTERVALS = [4, 8, 16, 24]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    root = tmp_path_factory.mktemp("runs")
    small_model().save(root / "base")
    plain = resolved(make_config(root, root / "base", "run", {"steps": 24}))
    stopping = {"kind": "halving", "first_rung": 0.25, "reduction": 2.0}
    found = check(plain | {"search": {"space": {"joint": {"refresh_interval": INTERVALS}}, "stopping": stopping}})
    write_inputs(RunLayout.of(found))
    return found


def trial_of(config: Config, video: int = 0, **settings: object) -> Trial:
    named = {name.replace("__", "."): value for name, value in settings.items()}
    return Trial.of(config, RunLayout.of(config), VIDEOS[video], named)


def test_every_trial_has_a_folder_of_its_own_and_the_run_s_models(config: Config) -> None:
    layout = RunLayout.of(config)
    trials = [trial_of(config, video, joint__refresh_interval=interval) for video in (0, 1) for interval in (4, 8)]
    assert len({trial.layout.joint(trial.video) for trial in trials}) == 4
    assert {trial.layout.finetune("ann") for trial in trials} == {layout.finetune("ann")}
    assert {trial.layout.inputs(VIDEOS[0]) for trial in trials} == {layout.inputs(VIDEOS[0])}
    assert trial_of(config, joint__refresh_interval=4).layout == trials[0].layout, "a function of the settings: a resumed search finds it"


def test_another_finetuning_has_models_of_its_own_and_shares_no_refresh(config: Config) -> None:
    own, other = trial_of(config, joint__refresh_interval=4), trial_of(config, joint__refresh_interval=4, finetune__epochs=3.0)
    assert other.layout.finetune("ann") != own.layout.finetune("ann")
    assert other.layout.finetune("ann") == trial_of(config, joint__refresh_interval=8, finetune__epochs=3.0).layout.finetune("ann")
    assert shared(own.program, other.program) == 0


def test_videos_and_seeds_share_nothing(config: Config) -> None:
    seeded = config.model_copy(update={"run": config.run.model_copy(update={"seed": 1})})
    one = trial_of(config, joint__refresh_interval=4)
    for other in (trial_of(config, 1, joint__refresh_interval=4), trial_of(seeded, joint__refresh_interval=4)):
        assert shared(one.program, other.program) == 0


def test_entrants_are_one_state_until_their_programs_part(config: Config) -> None:
    """Rungs at 6 and 12 of 24 steps: at 6 all but the interval of 4 are one, at 12 the intervals of 16 and 24."""
    found = points(config)
    assert found is not None
    entered = entrants(config, RunLayout.of(config), VIDEOS, found)
    assert [(one.video, one.point) for one in entered] == [(name, n) for name in ("ann--self", "ben--self") for n in range(4)]
    four, eight, sixteen, whole = entered[:4]
    assert four.keys[0] != eight.keys[0] == sixteen.keys[0] == whole.keys[0]
    assert eight.keys[1] != sixteen.keys[1] == whole.keys[1]
    assert four.price > eight.price > sixteen.price > whole.price
    assert set(entered[0].keys).isdisjoint(entered[4].keys)


def test_the_relatives_of_a_point_that_is_suggested_differ_in_the_interval(config: Config) -> None:
    settings = {"joint.refresh_interval": 8, "joint.flow_weight": 0.7}
    found = relatives(config, RunLayout.of(config), VIDEOS[0], settings, None)
    assert [trial.config.joint.refresh_interval for trial in found] == INTERVALS
    assert {trial.config.joint.flow_weight for trial in found} == {0.7}


def test_a_trial_is_run_and_judged(config: Config) -> None:
    layout = RunLayout.of(config)
    trial, trials = trial_of(config, joint__refresh_interval=24), Trials(config, layout)
    run = trials.run(trial, [trial_of(config, joint__refresh_interval=8)])
    at_rung = trials.judge_field(trial, run.to_step(6))
    state = run.to_end()
    found = trials.judge_result(trial, state)
    with np.load(trial.layout.joint(VIDEOS[0]) / "result" / "frames.npz") as frames:
        case = trials.case(VIDEOS[0])
        body = dilated(case.pose.iuv[..., 0] > 0, config.evaluate.body_dilation_px)
        assert found.psnr_body == pytest.approx(np.nanmean(psnr_body(frames["ivr_opt"], case.truth, body)))
    assert at_rung != found
    assert held_out_frames(layout, VIDEOS[0]) == len(case.pose) == 3
    assert trial.cost(layout) == cost(trial.config, 3, config.search.objective)
    assert list(Path(trial.layout.prefixes(VIDEOS[0])).glob("*/checkpoints")), "the state at which the two part is there for the other"


def test_a_member_of_a_population_goes_on_from_anothers_state(config: Config) -> None:
    """What it has then is what its settings alone lead to."""
    plain = resolved(config)
    plain["search"] |= {"space": {"joint": {"flow_weight": [0.5, 1.0]}}, "stopping": {"kind": "pbt", "exchange_every": 0.25}}
    found = check(plain)
    layout, trials = RunLayout.of(found), Trials(found, RunLayout.of(found))
    best = trial_of(found, joint__refresh_interval=8, joint__flow_weight=0.5)
    assert best.rungs == [6, 12, 18]
    trials.run(best, []).to_step(12)
    member = trial_of(found, joint__refresh_interval=8, joint__flow_weight=0.5, joint__changes=[{"from_step": 13, "flow_weight": 1.5}])
    assert [member.in_force(step) for step in (12, 13)] == [{"joint.flow_weight": 0.5}, {"joint.flow_weight": 1.5}]
    run = trials.run(member, [])
    made = bits(run.to_end())
    assert (run.spent.steps, run.spent.refreshes) == (12, 2)
    alone = found.model_copy(update={"joint": member.config.joint, "run": found.run.model_copy(update={"name": "alone"})})
    write_inputs(RunLayout.of(alone))
    whole = ForkedRun(
        load_task(alone, RunLayout.of(alone), VIDEOS[0]),
        VideoStore.of(alone, RunLayout.of(alone), VIDEOS[0]),
        member.program,
        [],
        layout.root / "unused",
        functools.partial(RefreshService(alone, RunLayout.of(alone)).answer, VIDEOS[0]),
    )
    assert bits(whole.to_end()) == made
    assert whole.spent.steps == 24 + found.joint.warm_up_steps
