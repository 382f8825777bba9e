"""A forked run against the same run alone, bit for bit."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from pathlib import Path

import numpy as np
import pytest

from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.loop import advance, answer, is_finished, is_waiting, optimise, start
from dpscale.joint.state import JointState, RefreshRequest
from dpscale.joint.video import VideoTask
from dpscale.search.forking import ForkedRun, fork, position
from dpscale.search.program import Program, alone, forks, program, together
from tests.unit.joint.small_video import bits, inverting_refresh, small_config, small_video

TRIALS: dict[str, dict[str, object]] = {
    "every 4": {},
    "every 8": {"refresh_interval": 8},
    "once": {"refresh_interval": 16},
    "weaker at the end": {"refresh_interval": 8, "strength_to": 0.2},
    "overlapping": {"refresh_overlap": 2},
    "more flow at the end": {"flow_weight_to": 3.0},
    "changing": {"refresh_interval": 8, "changes": [{"from_step": 6, "flow_weight": 3.0}, {"from_step": 9, "strength_to": 0.2}]},
    "another warm-up": {"warm_up_steps": 2},
    "every 5": {"refresh_interval": 5},
    "stopping": {"stop_l1": 255.0, "stop_checks": 1, "steps": 60, "refresh_interval": 30},
    "stopping, others": {"stop_l1": 255.0, "stop_checks": 1, "steps": 60, "refresh_interval": 25},
}
VIDEOS = {name: small_video(small_config(**{"steps": 16} | joint)) for name, joint in TRIALS.items()}
PROGRAMS = {name: program(video.config, "inputs") for name, video in VIDEOS.items()}


def counted(request: RefreshRequest) -> np.ndarray:
    """Targets that depend on everything in a request."""
    return inverting_refresh(dataclasses.replace(request, guidance=request.guidance + np.uint8(100 * request.strength)))


def run_of(name: str, folder: Path, rungs: tuple[int, ...] = ()) -> ForkedRun:
    others = list(PROGRAMS.values())
    store = VideoStore(folder / name, f"settings of {name}")
    return ForkedRun(VIDEOS[name], store, PROGRAMS[name], forks(PROGRAMS[name], others, rungs), folder / "prefixes", counted)


@pytest.fixture(scope="module")
def ended_alone() -> dict[str, dict[str, bytes]]:
    return {name: bits(optimise(video, counted, lambda *_: None, lambda _: None)) for name, video in VIDEOS.items()}


def spent(runs: list[ForkedRun]) -> tuple[int, int]:
    return sum(run.spent.steps for run in runs), sum(run.spent.refreshes for run in runs)


@pytest.mark.parametrize("order", [list(TRIALS), list(TRIALS)[::-1]])
def test_forked_trials_equal_the_same_trials_alone(tmp_path: Path, order: list[str], ended_alone) -> None:
    runs = [run_of(name, tmp_path) for name in order]
    ended = {name: bits(run.to_end()) for name, run in zip(order, runs, strict=True)}
    for name in order:
        assert ended[name] == ended_alone[name], name
        with np.load(tmp_path / name / "result" / "frames.npz") as frames:
            assert frames["ivr_opt"].tobytes() == ended_alone[name]["targets"]
    plain = [name for name in order if "stopping" not in name]  # those end before their programs do
    whole = [(PROGRAMS[name], len(PROGRAMS[name].operations)) for name in plain]
    work = together(whole)
    assert spent([run for name, run in zip(order, runs, strict=True) if name in plain]) == (work.steps, len(work.answers))
    assert work.steps < alone(whole).steps


def test_resting_at_rungs_changes_no_bit_and_computes_nothing_twice(tmp_path: Path, ended_alone) -> None:
    """Every trial to a rung, then every trial on, each time as a process that knows the folders alone."""
    names, rungs, runs = ["once", "every 8", "every 4", "overlapping"], (2, 5, 9), []
    for rung, name in itertools.product(rungs, names):
        run = run_of(name, tmp_path, rungs)
        assert run.to_step(rung).step == rung
        assert position(run.to_step(rung)) == PROGRAMS[name].after_step(rung)
        runs.append(run)
    for name in names:
        run = run_of(name, tmp_path, rungs)
        assert bits(run.to_end()) == ended_alone[name]
        runs.append(run)
    work = together([(PROGRAMS[name], len(PROGRAMS[name].operations)) for name in names])
    assert spent(runs) == (work.steps, len(work.answers))


class Killed(Exception):
    pass


@pytest.mark.parametrize("refreshes", [0, 1, 2])
def test_a_killed_trial_goes_on_and_so_do_those_that_wait_for_it(tmp_path: Path, refreshes: int, ended_alone) -> None:
    def dies(request: RefreshRequest) -> np.ndarray:
        if request.refresh == refreshes:
            raise Killed
        return counted(request)

    own = PROGRAMS["every 8"]
    store = VideoStore(tmp_path / "every 8", "settings of every 8")
    with pytest.raises(Killed):
        ForkedRun(VIDEOS["every 8"], store, own, forks(own, list(PROGRAMS.values())), tmp_path / "prefixes", dies).to_end()
    assert bits(run_of("once", tmp_path).to_end()) == ended_alone["once"]
    assert bits(run_of("every 8", tmp_path).to_end()) == ended_alone["every 8"]


def test_trials_at_once_compute_a_shared_beginning_once(tmp_path: Path, ended_alone) -> None:
    names = ["every 4", "every 8", "once", "weaker at the end"]
    runs = {name: run_of(name, tmp_path) for name in names}
    ended: dict[str, JointState] = {}
    threads = [threading.Thread(target=lambda name=name: ended.__setitem__(name, runs[name].to_end())) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: bits(state) for name, state in ended.items()} == {name: ended_alone[name] for name in names}
    work = together([(PROGRAMS[name], len(PROGRAMS[name].operations)) for name in names])
    assert spent(list(runs.values())) == (work.steps, len(work.answers))


def taken_to(video: VideoTask, own: Program, operations: int, store: VideoStore) -> JointState:
    state = start(video, keep=store.keep_guidance)
    while position(state) < operations and not is_finished(state, video):
        if is_waiting(state, video):
            answer(state, video, store.keeps(counted))
        else:
            advance(state, video)
    store.save(state)
    return state


@pytest.mark.parametrize("operations", range(1, len(PROGRAMS["overlapping"].operations) + 1, 4))
def test_a_fork_is_the_state_under_another_fingerprint(tmp_path: Path, operations: int) -> None:
    video, own = VIDEOS["overlapping"], PROGRAMS["overlapping"]
    source, target = VideoStore(tmp_path / "source", "one"), VideoStore(tmp_path / "target", "two")
    state = taken_to(video, own, operations, source)
    taken = fork(source, target, video)
    assert bits(taken) == bits(state)
    assert bits(target.load(video)) == bits(state)
    assert VideoStore(tmp_path / "target", "one").load(video) is None
    source_left = bits(source.load(video))
    assert source_left == bits(state), "the source stays as it was"


def test_a_method_without_representation_runs_whole(tmp_path: Path) -> None:
    video = small_video(small_config(method="image"))
    own = program(video.config, "inputs")
    store = VideoStore(tmp_path, "image")
    ended = ForkedRun(video, store, own, forks(own, list(PROGRAMS.values()), (2,)), tmp_path / "prefixes", counted).to_end()
    assert bits(ended) == bits(optimise(video, counted, lambda *_: None, lambda _: None))
