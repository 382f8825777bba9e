"""Intervals from the rule that a search has written: fixed once, and then they stay."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dpscale.config.load import check, resolved
from dpscale.config.schema import Config, JointConfig
from dpscale.config.sources import VideoConfig
from dpscale.data.layout import RunLayout
from dpscale.data.shards import ShardError
from dpscale.data.types import InputError
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.loop import optimise_on_disk
from dpscale.joint.refresh import RefreshService
from dpscale.joint.state import RefreshRequest
from dpscale.joint.video import load_task
from dpscale.search.prediction import check_rule, even, foreseen, with_interval
from dpscale.search.record import Row, chosen
from dpscale.search.rule import read_rule, rule_of
from tests.ray.test_optimize_on_ray import make_config, write_inputs
from tests.small_performer import small_model

VIDEOS = [VideoConfig(performer=name) for name in ("ann", "ben", "cid")]
STEPS = 24


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    small_model().save(folder)
    return folder


@pytest.fixture
def config(tmp_path: Path, weights: Path) -> Config:
    """Of a run that asks for predictions, in the folder where a search has found a rule."""
    plain = resolved(make_config(tmp_path, weights, "run", {"steps": STEPS}))
    plain["videos"] = [{"performer": video.performer} for video in VIDEOS]
    found = check(plain)
    layout = RunLayout.of(found)
    write_inputs(layout, ("ann", "ben", "cid"))
    write_rule_of(found, (8, 12, 12))
    plain["joint"] |= {"refresh_interval": "auto", "refresh_interval_rule": str(layout.root)}
    return check(plain)


def write_rule_of(config: Config, intervals: tuple[int, ...]) -> Path:
    """As the end of a search writes it, with a recommended interval a video."""
    layout = RunLayout.of(config)
    pairs = zip(VIDEOS, intervals, strict=True)
    rows = [Row(layout.video_name(video), 0, {"joint.refresh_interval": n}, quality=20.0, cost=9.0, ended=True) for video, n in pairs]
    written = rule_of(config, layout, rows, chosen(rows, 0.1))
    assert written is not None
    return written


def test_what_is_fixed_stays_though_the_rule_goes(config: Config) -> None:
    layout = RunLayout.of(config)
    rule = layout.rule
    check_rule(config, layout)
    ahead = [foreseen(config, layout, video) for video in VIDEOS]
    assert not layout.interval(VIDEOS[0]).exists(), "to look ahead writes nothing"
    fixed = [with_interval(config, layout, video) for video in VIDEOS]
    assert [video.refresh_interval for video in fixed] == ahead
    assert set(ahead) <= {8, 12}
    told = json.loads(layout.interval(VIDEOS[0]).read_text())
    assert told["refresh_interval"] == ahead[0]
    assert told["complexity"]["num_frames"] == 3
    write_rule_of(config, (2, 2, 2))
    assert [with_interval(config, layout, video) for video in VIDEOS] == fixed
    rule.unlink()
    check_rule(config, layout)
    assert [with_interval(config, layout, video) for video in VIDEOS] == fixed
    assert [foreseen(config, layout, video) for video in VIDEOS] == ahead


def test_another_driving_pose_is_another_prediction(config: Config) -> None:
    layout = RunLayout.of(config)
    with_interval(config, layout, VIDEOS[0])
    write_rule_of(config, (2, 2, 2))
    shutil.rmtree(layout.shard("ann", "main"))
    shutil.copytree(layout.shard("ben", "main"), layout.shard("ann", "main"))
    assert with_interval(config, layout, VIDEOS[0]).refresh_interval == 2


def test_a_video_whose_pose_is_not_there_yet(config: Config) -> None:
    layout = RunLayout.of(config)
    shutil.rmtree(layout.shard("ann", "main"))
    assert foreseen(config, layout, VIDEOS[0]) is None
    with pytest.raises(ShardError, match="holds no finished shard"):
        with_interval(config, layout, VIDEOS[0])


def test_a_number_needs_no_rule(config: Config) -> None:
    layout, own = RunLayout.of(config), VIDEOS[0].model_copy(update={"refresh_interval": 5})
    numbered = config.of_video(own)
    layout.rule.unlink()
    for asked, video, interval in ((config, own, 5), (numbered, VIDEOS[1], 5)):
        assert with_interval(asked, layout, video) == video
        assert foreseen(asked, layout, video) == interval
    check_rule(numbered, layout)


def _no_file(rule: Path) -> None:
    rule.unlink()


def _a_folder_instead(rule: Path) -> None:
    rule.unlink()
    rule.mkdir()


def _another_schema(rule: Path) -> None:
    rule.write_text(json.dumps(json.loads(rule.read_text()) | {"schema": 7}))


@pytest.mark.parametrize(
    ("spoil", "said"), [(_no_file, "holds no rule"), (_a_folder_instead, "holds no rule"), (_another_schema, "has schema 7, this version reads 1")]
)
def test_a_rule_that_cannot_be_read_is_told_with_its_setting(config: Config, spoil: Callable[[Path], None], said: str) -> None:
    layout = RunLayout.of(config)
    spoil(layout.rule)
    for ask in (lambda: check_rule(config, layout), lambda: with_interval(config, layout, VIDEOS[0])):
        with pytest.raises(InputError, match=rf"joint\.refresh_interval_rule = '{layout.root}': .*rule\.json: {said}"):
            ask()


def test_a_rule_may_be_named_by_its_file_and_tells_when_runs_differ_in_length(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    layout = RunLayout.of(config)
    by_file = config.model_copy(update={"joint": config.joint.model_copy(update={"refresh_interval_rule": layout.rule})})
    assert foreseen(by_file, layout, VIDEOS[1]) == foreseen(config, layout, VIDEOS[1])
    check_rule(by_file, layout)
    assert not caplog.records
    check_rule(config.model_copy(update={"joint": config.joint.model_copy(update={"steps": 100})}), layout)
    assert "runs of 24 field steps, and joint.steps = 100" in caplog.text
    assert read_rule(layout.rule).steps == STEPS


@pytest.mark.parametrize(
    ("interval", "steps", "overlap", "expected"),
    [(437, 2000, 0, 400), (2000, 2000, 0, 2000), (5000, 2000, 0, 2000), (1500, 2000, 0, 1000), (500, 2000, 0, 500), (3, 10, 4, 5), (1, 1, 0, 1)],
)
def test_an_interval_is_evened_out(interval: int, steps: int, overlap: int, expected: int) -> None:
    """As many refreshes, about equally far apart, and none asked for before the one before is in force."""
    assert even(interval, JointConfig(steps=steps, refresh_overlap=overlap, refresh_interval=max(interval, overlap + 1))) == expected


class _Stopped(Exception):
    pass


def test_a_run_that_is_resumed_under_another_rule_makes_the_same_frames(config: Config) -> None:
    layout = RunLayout.of(config)

    def make(config: Config, layout: RunLayout, video: VideoConfig, most: int = 99) -> np.ndarray:
        service = RefreshService(config, layout)

        def refresh(request: RefreshRequest) -> np.ndarray:
            if request.refresh == most:
                raise _Stopped
            return functools.partial(service.answer, video)(request)

        store = VideoStore.of(config, layout, video)
        optimise_on_disk(load_task(config, layout, video), store, refresh, lambda *_: None)
        return np.load(store.folder / "result" / "frames.npz")["ivr_opt"]

    fixed = with_interval(config, layout, VIDEOS[0])
    with pytest.raises(_Stopped):
        make(config, layout, fixed, most=1)
    write_rule_of(config, (2, 2, 2))
    resumed = make(config, layout, with_interval(config, layout, VIDEOS[0]))
    history = json.loads((layout.joint(fixed) / "result" / "history.json").read_text())
    assert [entry["step"] for entry in history["refreshes"]] == [0, *range(fixed.refresh_interval or 0, STEPS + 1, fixed.refresh_interval or 1)]
    alone = config.of_video(fixed).model_copy(update={"run": config.run.model_copy(update={"name": "alone"})})
    write_inputs(RunLayout.of(alone), ("ann",))
    np.testing.assert_array_equal(make(alone, RunLayout.of(alone), VIDEOS[0]), resumed)
