"""Preprocessing on Ray Data: shards do not depend on the actors, one bad clip stops no other, finished clips are skipped."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dpscale.config.schema import Config
from dpscale.config.sources import RenderedPerformer
from dpscale.data.checkpoint import marker_of
from dpscale.data.layout import RunLayout
from dpscale.data.shards import read_clip, write_part
from dpscale.data.types import InputError, Outcome
from dpscale.preprocess import on_ray
from dpscale.preprocess.clips import Tools, encoded, main_chunks, prepare_person
from dpscale.preprocess.manifest import main_jobs
from dpscale.preprocess.on_ray import preprocess
from dpscale.preprocess.quarantine import read_quarantine
from dpscale.preprocess.sources import write_h264
from tests.small_performer import small_model
from tests.unit.diffusion.models import CHANNELS

SIZE = 32
STEPS = ("find the person, fit the body", "cut frames, draw the pose", "encode, write parts, join them")

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """A base model, a film of a rendered performer, and a film of nobody."""
    from dpscale.body.rendered import render_performer

    folder = tmp_path_factory.mktemp("inputs")
    small_model().save(folder / "base")
    write_h264(folder / "walk.mp4", render_performer(1_000_003, "walk", 4, 10.0, 192, 1, yaw=0.0).frames, 10.0)
    write_h264(folder / "nobody.mp4", np.full((3, 64, 64, 3), 90, np.uint8), 10.0)
    return folder


def config(inputs: Path, root: Path, num_actors: int, videos: list | None = None, **preprocess_settings) -> Config:
    return Config.model_validate({
        "run": {"root": str(root)},
        "performers": [
            {"kind": "video", "name": "nobody", "path": str(inputs / "nobody.mp4")},
            {"kind": "rendered", "name": "doll", "performer_seed": 1_000_001, "num_frames": 3},
            {"kind": "video", "name": "anna", "path": str(inputs / "walk.mp4")},
            {"kind": "video", "name": "gone", "path": str(inputs / "gone.mp4")},
        ],
        "drives": [
            {"kind": "self"},
            {"kind": "motion", "name": "dance", "num_frames": 3},
            {"kind": "video", "name": "walk", "path": str(inputs / "walk.mp4")},
        ],
        "videos": videos
        or [{"performer": p, "drive": d} for p, d in (("doll", "self"), ("doll", "walk"), ("anna", "dance"), ("nobody", "dance"))],
        "synth": {"supersampling": 1},
        "preprocess": {"size": SIZE, "fit_steps": 5, "num_actors": num_actors} | preprocess_settings,
        "diffusion": {"preset": "tiny", "weights": str(inputs / "base")},
    })  # fmt: skip


def run(settings: Config) -> dict[str, Outcome]:
    return {outcome.name: outcome for outcome in preprocess(settings, RunLayout.of(settings))}


def markers(settings: Config) -> dict[str, dict]:
    """Markers hold each file's hash."""
    layout = RunLayout.of(settings)
    return {f"{p}/{c}": marker_of(layout.shard(p, c)) for p, c in (("doll", "main"), ("anna", "main"), ("doll", "walk"), ("anna", "dance"))}


@pytest.fixture(scope="module")
def finished(inputs, ray_session, tmp_path_factory):
    settings = config(inputs, tmp_path_factory.mktemp("one"), num_actors=1)
    return settings, run(settings)


def test_good_clips_are_whole_and_bad_ones_say_why(finished):
    settings, outcomes = finished
    assert [name for name, outcome in outcomes.items() if outcome.ok] == ["doll", "anna", "doll/walk", "anna/dance"]
    assert "no person was found" in outcomes["nobody"].error
    assert "gone.mp4: no such file" in outcomes["gone"].error
    assert outcomes["nobody/dance"].error.startswith("performer 'nobody' has no clip to drive")
    layout = RunLayout.of(settings)
    anna, dance = read_clip(layout.shard("anna", "main")), read_clip(layout.shard("anna", "dance"))
    assert (len(anna), anna.num_train, anna.fps, anna.frames.shape[1:]) == (4, 3, 10.0, (SIZE, SIZE, 3))
    assert anna.latents.shape == (4, CHANNELS, SIZE // 8, SIZE // 8)
    assert dance.frames is None
    assert dance.latents is None
    assert (len(dance), dance.num_train) == (3, 3)
    np.testing.assert_array_equal(dance.pose.shape.log_scales, anna.pose.shape.log_scales)
    assert (dance.pose.iuv[..., 0] > 0).any((1, 2)).all()


def test_a_rendered_performer_keeps_its_exact_pose(finished):
    settings, _ = finished
    layout = RunLayout.of(settings)
    doll = read_clip(layout.shard("doll", "main"))
    with np.load(layout.truth("doll")) as truth:
        np.testing.assert_array_equal(doll.pose.iuv, truth["iuv"])
        np.testing.assert_array_equal(doll.pose.flow, truth["flow"].astype(np.float16).astype(np.float32))
        np.testing.assert_array_equal(doll.pose.keypoints, truth["keypoints"])


def test_actors_of_two_kinds_make_the_same_shard(inputs, tmp_path, monkeypatch):
    """As with GPUs for the encoders: chunks of a clip go to whichever actor is free, and the one that writes the last part joins all."""
    doll = RenderedPerformer(kind="rendered", name="doll", performer_seed=1_000_001, num_frames=70)
    one, two = (
        config(inputs, tmp_path / name, 1, [{"performer": "doll", "drive": "self"}], size=2 * SIZE).model_copy(update={"performers": (doll,)})
        for name in ("one", "two")
    )
    assert run(one)["doll"].ok
    monkeypatch.setattr(on_ray, "pools", lambda _: (on_ray.Pool(STEPS[:2], 0, 1), on_ray.Pool(STEPS[2:], 0, 2)))
    assert run(two)["doll"].ok
    shards = [RunLayout.of(settings).shard("doll", "main") for settings in (one, two)]
    assert len(read_clip(shards[0])) == 70
    assert marker_of(shards[0]) == marker_of(shards[1])


def test_the_number_of_actors_and_the_place_change_no_bit(finished, inputs, tmp_path):
    settings, _ = finished
    two = config(inputs, tmp_path / "two", num_actors=2, store=str(tmp_path / "store"))
    run(two)
    assert markers(two) == markers(settings)
    third = config(inputs, tmp_path / "third", num_actors=1, store=str(tmp_path / "store"))
    assert {name for name, outcome in run(third).items() if outcome.skipped} == {"doll", "anna", "doll/walk", "anna/dance"}
    assert markers(third) == markers(settings)


def test_a_store_that_cannot_be_used_is_found_before_anything_is_computed(inputs, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="file"):
        run(config(inputs, tmp_path, num_actors=1, store=str(tmp_path / "file" / "store")))


def test_a_second_run_skips_and_a_changed_film_is_done_again(finished, inputs, tmp_path):
    settings, _ = finished
    before = markers(settings)
    again = run(settings)
    assert all(outcome.skipped for outcome in again.values() if outcome.ok)
    assert {name for name, outcome in again.items() if not outcome.ok} == {"nobody", "gone", "nobody/dance"}
    os.remove(RunLayout.of(settings).shard("anna", "dance") / "_COMPLETE.json")
    assert [name for name, outcome in run(settings).items() if outcome.ok and not outcome.skipped] == ["anna/dance"]
    assert markers(settings) == before


def test_bad_input_stays_in_quarantine_until_asked_for(finished):
    settings, outcomes = finished
    layout = RunLayout.of(settings)
    entries = read_quarantine(layout.quarantine)
    assert entries.keys() == {"nobody", "gone", "nobody/dance"}
    assert entries["nobody"].reason == outcomes["nobody"].error
    assert "track_person" in entries["nobody"].traceback
    kept_out = run(settings)["nobody"]
    assert kept_out.error.startswith(outcomes["nobody"].error)
    assert "--retry-quarantined tries it again" in kept_out.error
    layout.quarantine.unlink()
    assert run(settings)["nobody"].error == outcomes["nobody"].error
    assert read_quarantine(layout.quarantine).keys() == entries.keys()


def test_changed_encoders_keep_the_person_and_the_body(finished, inputs, tmp_path):
    settings, _ = finished
    layout = RunLayout.of(settings)
    results = {path: path.stat().st_mtime_ns for path in (layout.root / "steps").glob("*.npz")}
    assert {path.name.split("-")[0] for path in results} == {"track", "body"}
    small_model(seed=1).save(tmp_path / "other")
    other = settings.model_copy(update={"diffusion": settings.diffusion.model_copy(update={"weights": str(tmp_path / "other")})})
    before = read_clip(layout.shard("anna", "main"))
    assert not run(other)["anna"].skipped
    after = read_clip(layout.shard("anna", "main"))
    assert {path: path.stat().st_mtime_ns for path in (layout.root / "steps").glob("*.npz")} == results
    np.testing.assert_array_equal(after.pose.keypoints, before.pose.keypoints)
    assert not np.array_equal(after.latents, before.latents)
    assert run(settings)["anna"].ok  # as it was, for the tests that follow


def test_a_part_that_is_there_is_not_made_again(inputs, tmp_path):
    """What a killed run left of a clip; marked, so that it can be told from a new one."""
    settings = config(inputs, tmp_path, num_actors=1, videos=[{"performer": "anna"}])
    layout, tools = RunLayout.of(settings), Tools(settings, RunLayout.of(settings))
    job, performer = main_jobs(settings, layout)[2], settings.performers[2]
    prepare_person(tools, performer, job.source)
    (chunk,) = main_chunks(tools, performer, job.source, {"key": job.key})
    marked = replace(encoded(tools, chunk), latents=np.full_like(encoded(tools, chunk).latents, 7))
    write_part(layout.parts("anna", "main", job.key) / "00000000-0004.parquet", marked, 0)
    assert run(settings)["anna"].ok
    assert (read_clip(layout.shard("anna", "main")).latents == 7).all()
    assert not layout.parts("anna", "main", job.key).exists()


def test_more_actors_than_the_cluster_holds_are_refused(inputs, tmp_path):
    with pytest.raises(InputError, match=r"preprocess.num_actors = 50 need 26 logical CPUs, Ray has 4: start fewer"):
        run(config(inputs, tmp_path, num_actors=50))
