"""Joint optimisation on actors against the same in one process: bit for bit, whatever is killed."""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from dpscale.config.schema import Config, DiffusionConfig, JointConfig, RayConfig, RunConfig, SchedulerConfig
from dpscale.config.sources import VideoConfig, VideoPerformer
from dpscale.data.checkpoint import commit_folder
from dpscale.data.layout import RunLayout
from dpscale.data.shards import write_clip
from dpscale.data.types import Clip, InputError
from dpscale.diffusion.delta import save_delta
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.loop import optimise_on_disk
from dpscale.joint.refresh import RefreshService
from dpscale.joint.video import load_task
from dpscale.scheduler.journal import segments
from dpscale.scheduler.logbook import journal_path, wishes_path
from dpscale.scheduler.messages import Cancelled, Paused, Resumed, Role
from dpscale.scheduler.on_ray import num_workers, optimize
from dpscale.scheduler.wishes import put_wish
from dpscale.tracking.tracker import BATCH, NullTracker
from tests.small_performer import small_clip, small_model
from tests.unit.field.small_field import SMALL

PERFORMERS = ("ann", "ben")
VIDEOS = [VideoConfig(performer=name) for name in PERFORMERS]
STRANGER, ABSENT = VideoConfig(performer="cid"), VideoConfig(performer="dan")
"""A performer whose weights belong to another base; one who was never preprocessed."""


def make_config(root: Path, weights: Path, name: str, joint: dict[str, object] | None = None, **scheduler: object) -> Config:
    settings = {"slice_steps": 3, "field_cpus": 0.5, "refresh_cpus": 0.5, "field_workers": 2} | scheduler
    return Config(
        run=RunConfig(name=name, root=root),
        ray=RayConfig(torch_threads=1),
        performers=tuple(VideoPerformer(name=performer, path=Path("none.mp4")) for performer in (*PERFORMERS, "cid", "dan")),
        diffusion=DiffusionConfig(preset="tiny", weights=str(weights), sampling_steps=2, guidance_scale=1.5, window=2, stride=1, window_batch=2),
        field=SMALL,
        joint=JointConfig(**{"steps": 10, "refresh_interval": 5, "warm_up_steps": 4} | (joint or {})),
        scheduler=SchedulerConfig(**settings),
    )


def clip_with_flow(performer: str) -> Clip:
    clip = small_clip(performer, small_model())
    rng = np.random.default_rng(7)
    flow = rng.normal(0, 0.03, clip.pose.flow.shape).astype(np.float32)
    return dataclasses.replace(clip, pose=dataclasses.replace(clip.pose, flow=flow, flow_valid=rng.random(flow.shape[:3]) < 0.2))


def write_inputs(layout: RunLayout, performers: tuple[str, ...] = PERFORMERS) -> None:
    """Shards and finetuned weights, a little off the base and different for every performer."""
    model = small_model()
    for number, performer in enumerate(performers):
        write_clip(layout.shard(performer, "main"), clip_with_flow(performer))
        with torch.no_grad():
            model.denoiser.unet.conv_out.bias.add_(0.1 * (number + 1))
            model.autoencoder.conv_out.bias.add_(0.05 * (number + 1))

        def write(folder: Path) -> None:
            save_delta(folder / "denoiser.safetensors", model.denoiser, ["unet.conv_out.bias"])
            save_delta(folder / "decoder.safetensors", model.autoencoder, ["conv_out.bias"])

        commit_folder(layout.finetune(performer), write, {"settings": "test"})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    small_model().save(folder)
    return folder


@pytest.fixture(scope="module")
def in_one_process(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    """The frames of every video by joint/loop.py alone, with its own model for each."""
    return made_alone(make_config(tmp_path_factory.mktemp("runs"), weights, "alone"))


def made_alone(config: Config) -> dict[str, dict[str, np.ndarray]]:
    layout = RunLayout.of(config)
    write_inputs(layout)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.ray.torch_threads)
    for video in VIDEOS:
        service = RefreshService(config, layout)
        refresh = functools.partial(service.answer, video)
        optimise_on_disk(load_task(config, layout, video), VideoStore.of(config, layout, video), refresh, lambda *_: None)
    torch.set_num_threads(threads)
    return frames_of(layout)


def frames_of(layout: RunLayout) -> dict[str, dict[str, np.ndarray]]:
    return {video.performer: dict(np.load(layout.joint(video) / "result" / "frames.npz")) for video in VIDEOS}


def assert_equal(one: dict[str, dict[str, np.ndarray]], two: dict[str, dict[str, np.ndarray]]) -> None:
    for performer, frames in one.items():
        for name, array in frames.items():
            np.testing.assert_array_equal(two[performer][name], array, err_msg=f"{performer} {name}")


class Watcher(NullTracker):
    """Takes each of `acts` once, at the first refresh that is reported for its step; keeps what was logged."""

    def __init__(self, acts: Mapping[int, Callable[[], None]]) -> None:
        self._acts = dict(acts)
        self.logged: list[tuple[str, dict[str, float], int]] = []
        self.finished: dict[str, str] = {}

    @property
    def acted(self) -> bool:
        return not self._acts

    def metrics(self, key: str, values: Mapping[str, float], step: int) -> None:
        self.logged.append((key, dict(values), step))
        if "refresh_s" in values and step in self._acts:
            self._acts.pop(step)()

    def finish(self, key: str, status: Any) -> None:
        self.finished[key] = status


def kill(role: str) -> None:
    """The death of the first actor of a role, as by the kernel: no farewell, nothing saved."""
    names = sorted(name for name in ray.util.list_named_actors() if name.startswith(role))
    ray.kill(ray.get_actor(names[0]))


def test_actors_make_the_frames_of_the_loop_whoever_else_fails(ray_session: None, weights: Path, tmp_path: Path, in_one_process) -> None:
    config = make_config(tmp_path, weights, "actors", max_failures=50)
    layout = RunLayout.of(config)
    write_inputs(layout, (*PERFORMERS, STRANGER.performer))
    save_delta(layout.finetune(STRANGER.performer) / "decoder.safetensors", torch.nn.Linear(2, 2), ["weight"])
    watcher = Watcher({})
    outcomes = optimize(config, layout, [STRANGER, ABSENT, *VIDEOS[::-1]], watcher)
    assert [outcome.name for outcome in outcomes] == ["cid--self", "dan--self", "ben--self", "ann--self"]
    assert "does not fit this model: first wrong tensor 'weight'" in outcomes[0].error
    assert "preprocess performer 'dan' first" in outcomes[1].error
    assert [outcome.error for outcome in outcomes[2:]] == [None, None]
    assert_equal(in_one_process, frames_of(layout))
    for frames in frames_of(layout).values():
        assert frames["ivr_opt"].shape == (3, 32, 32, 3)
        assert not np.array_equal(frames["ivr_opt"], frames["wo_opt"])
    assert watcher.finished == {"optimize/ann--self": "FINISHED", "optimize/ben--self": "FINISHED", "optimize/cid--self": "FAILED"}
    strengths = [values["refresh_strength"] for key, values, _ in watcher.logged if key == "optimize/ann--self" and "refresh_strength" in values]
    assert strengths == pytest.approx([1.0, 0.7, 0.3])
    curves = [values for key, values, _ in watcher.logged if key == BATCH]
    assert curves, "the batch has curves of its own"
    assert {"scheduler/busy/field", "scheduler/waiting/refresh", "scheduler/videos/done"} <= curves[0].keys()
    assert any("loss_flow" in values for _, values, _ in watcher.logged)
    again = optimize(config, layout, VIDEOS, NullTracker())
    assert all(outcome.skipped for outcome in again)


def test_killed_actors_change_no_bit(ray_session: None, weights: Path, tmp_path: Path, in_one_process) -> None:
    config = make_config(tmp_path, weights, "killed", field_workers=1, warm_videos=1)
    layout = RunLayout.of(config)
    write_inputs(layout)
    watcher = Watcher({0: lambda: kill("field"), 5: lambda: kill("refresh")})
    outcomes = optimize(config, layout, VIDEOS, watcher)
    assert watcher.acted
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert_equal(in_one_process, frames_of(layout))


@pytest.mark.slow
def test_a_dead_driver_is_continued(ray_session: None, weights: Path, tmp_path: Path, in_one_process) -> None:
    class DriverDied(BaseException):
        pass

    def die() -> None:
        raise DriverDied

    config = make_config(tmp_path, weights, "driver")
    layout = RunLayout.of(config)
    write_inputs(layout)
    with pytest.raises(DriverDied):
        optimize(config, layout, VIDEOS, Watcher({5: die}))
    one_worker = make_config(tmp_path, weights, "driver", kind="fifo", field_workers=1)
    outcomes = optimize(one_worker, layout, VIDEOS, NullTracker())
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert_equal(in_one_process, frames_of(layout))


@pytest.mark.slow
def test_wishes_of_people_are_heard(ray_session: None, weights: Path, tmp_path: Path, in_one_process) -> None:
    """Cancelled and paused before the driver begins, resumed by a person while it runs; the frames are those of an undisturbed video."""
    config = make_config(tmp_path, weights, "wishes", refresh_checkpoint_s=0)
    layout = RunLayout.of(config)
    write_inputs(layout)
    folder = wishes_path(layout.scheduling)
    put_wish(folder, Cancelled("ben--self"))
    put_wish(folder, Paused("ann--self"))

    def resume() -> None:
        put_wish(folder, Paused("ann--self"))  # and again, with a refresh under way: it is told to stop at a window-step
        time.sleep(2)
        put_wish(folder, Resumed("ann--self"))

    person = threading.Timer(20, resume)
    person.start()
    ann, ben = optimize(config, layout, VIDEOS, NullTracker())
    person.join()
    assert (ann.error, ben.error) == (None, "cancelled")
    alone, made = in_one_process["ann"], dict(np.load(layout.joint(VIDEOS[0]) / "result" / "frames.npz"))
    for name, array in alone.items():
        np.testing.assert_array_equal(made[name], array)
    events = [event for _, event in segments(journal_path(layout.scheduling))[-1].events]
    assert [event for event in events if isinstance(event, Paused | Resumed | Cancelled)] == [
        Cancelled("ben--self"), Paused("ann--self"), Paused("ann--self"), Resumed("ann--self"),
    ]  # fmt: skip


OVERLAPPING: dict[str, object] = {"steps": 30, "refresh_interval": 10, "refresh_overlap": 6}


@pytest.fixture(scope="module")
def overlapping_alone(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    return made_alone(make_config(tmp_path_factory.mktemp("runs"), weights, "alone", OVERLAPPING))


@pytest.mark.parametrize("slow", ["field", "refresh"])
@pytest.mark.slow
def test_an_overlap_depends_on_no_time(ray_session: None, weights: Path, tmp_path: Path, overlapping_alone, slow: str) -> None:
    """Many slices fit into a refresh, or one slice lasts longer than it: the frames are those of one process, in which nothing overlaps."""
    config = make_config(tmp_path, weights, slow, OVERLAPPING, slice_steps=1 if slow == "refresh" else 30, field_workers=2)
    layout = RunLayout.of(config)
    write_inputs(layout)
    outcomes = optimize(config, layout, VIDEOS, NullTracker())
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert_equal(overlapping_alone, frames_of(layout))


@pytest.mark.slow
def test_a_killed_overlap_changes_no_bit(ray_session: None, weights: Path, tmp_path: Path, overlapping_alone) -> None:
    config = make_config(tmp_path, weights, "killed", OVERLAPPING, slice_steps=2, field_workers=1)
    layout = RunLayout.of(config)
    write_inputs(layout)
    watcher = Watcher({10: lambda: kill("field"), 20: lambda: kill("refresh")})
    outcomes = optimize(config, layout, VIDEOS, watcher)
    assert watcher.acted
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert_equal(overlapping_alone, frames_of(layout))


@pytest.mark.slow
def test_a_method_without_representation_runs_on_actors(ray_session: None, weights: Path, tmp_path: Path) -> None:
    settings: dict[str, object] = {"method": "noisy_image"}
    alone = made_alone(make_config(tmp_path, weights, "alone", settings))
    config = make_config(tmp_path, weights, "actors", settings)
    layout = RunLayout.of(config)
    write_inputs(layout)
    outcomes = optimize(config, layout, VIDEOS, NullTracker())
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert_equal(alone, frames_of(layout))
    assert sorted(alone["ann"]) == ["ivr_opt", "wo_opt"]
    assert not np.array_equal(alone["ann"]["ivr_opt"], alone["ann"]["wo_opt"])


def test_a_cluster_that_is_too_small_is_refused(weights: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, weights, "small", field_cpus=2.0, refresh_cpus=1.0, field_workers=8)
    assert num_workers(config, 8, {"CPU": 8.0}) == {Role.REFRESH: 1, Role.FIELD: 3}
    assert num_workers(config, 2, {"CPU": 8.0}) == {Role.REFRESH: 1, Role.FIELD: 2}
    several = make_config(tmp_path, weights, "several", field_cpus=2.0, refresh_cpus=1.0, field_workers=8, refresh_workers=3)
    assert num_workers(several, 8, {"CPU": 8.0}) == {Role.REFRESH: 3, Role.FIELD: 2}
    assert num_workers(several, 8, {"CPU": 4.0}) == {Role.REFRESH: 2, Role.FIELD: 1}
    mixed = make_config(tmp_path, weights, "mixed", field_cpus=1.5, refresh_cpus=1.5, field_workers=8, refresh_workers=3, mixed=True)
    assert [num_workers(mixed, videos, {"CPU": cpus}) for videos, cpus in ((20, 64.0), (4, 64.0), (20, 4.0))] == [{Role.FIELD: n} for n in (11, 4, 2)]
    with pytest.raises(InputError, match=r"a worker needs 1\.5 CPUs and 0 GPUs, the cluster has 1 and 0"):
        num_workers(mixed, 8, {"CPU": 1.0})
    with pytest.raises(InputError, match="need 3 CPUs and 0 GPUs, the cluster has 2 and 0"):
        num_workers(config, 8, {"CPU": 2.0})
