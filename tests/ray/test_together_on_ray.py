"""Videos of one performer that share a refresh worker's UNet calls, and workers that do everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dpscale.config.schema import Config
from dpscale.config.sources import SelfDrive, VideoConfig
from dpscale.data.layout import RunLayout
from dpscale.joint.checkpoint import VideoStore
from dpscale.scheduler.journal import segments
from dpscale.scheduler.logbook import journal_path
from dpscale.scheduler.messages import Role, StartRefresh, StartSlice
from dpscale.scheduler.on_ray import optimize
from dpscale.tracking.tracker import NullTracker
from tests.ray.test_optimize_on_ray import make_config, write_inputs
from tests.small_performer import small_model

DRIVES = ("self", "second", "third")
VIDEOS = [VideoConfig(performer=performer, drive=drive) for performer in ("ann", "ben") for drive in DRIVES]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    small_model().save(folder)
    return folder


def made(config: Config) -> dict[str, np.ndarray]:
    """The result of every video."""
    config = config.model_copy(update={"drives": tuple(SelfDrive(name=name) for name in DRIVES)})
    layout = RunLayout.of(config)
    write_inputs(layout)
    assert [outcome.error for outcome in optimize(config, layout, VIDEOS, NullTracker())] == [None] * len(VIDEOS)
    return {layout.video_name(video): np.load(VideoStore.of(config, layout, video).folder / "result" / "frames.npz")["ivr_opt"] for video in VIDEOS}


def most_together(config: Config) -> int:
    """Videos that one actor refreshed at once."""
    (segment,) = segments(journal_path(RunLayout.of(config).scheduling))
    return max(
        len(actor.videos) for _, _, _, scheduler in segment.replay() for actor in scheduler.actors.values() if actor.role is Role.REFRESH
    )


@pytest.fixture(scope="module")
def one_by_one(ray_session: None, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    config = make_config(tmp_path_factory.mktemp("runs"), weights, "one-by-one")
    frames = made(config)
    assert most_together(config) == 1
    return frames


def test_what_videos_get_together_is_what_each_gets_alone_up_to_rounding(
    ray_session: None, weights: Path, tmp_path: Path, one_by_one: dict[str, np.ndarray]
) -> None:
    config = make_config(tmp_path, weights, "together", refresh_together=3)
    found = made(config)
    assert 1 < most_together(config) <= 3
    for name, frames in one_by_one.items():
        np.testing.assert_allclose(found[name].astype(float), frames.astype(float), atol=3, err_msg=name)


def test_mixed_workers_make_the_same_to_the_bit(ray_session: None, weights: Path, tmp_path: Path, one_by_one: dict[str, np.ndarray]) -> None:
    config = make_config(tmp_path, weights, "mixed", mixed=True, field_workers=1)
    for name, frames in made(config).items():
        np.testing.assert_array_equal(frames, one_by_one[name], err_msg=name)
    (segment,) = segments(journal_path(RunLayout.of(config).scheduling))
    commands = [command for _, _, commands, _ in segment.replay() for command in commands]
    done = [(command.actor, type(command)) for command in commands if isinstance(command, StartSlice | StartRefresh)]
    assert len({actor for actor, _ in done}) == 2
    assert any({kind for other, kind in done if other == actor} == {StartSlice, StartRefresh} for actor, _ in done)
