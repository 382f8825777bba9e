"""Keys of clips change with what is behind them, and with nothing else."""

from pathlib import Path

import pytest

from dpscale.config.schema import Config
from dpscale.data.checkpoint import commit_folder
from dpscale.data.layout import RunLayout
from dpscale.preprocess.manifest import driving_jobs, main_jobs


def config(tmp_path: Path, **changes) -> Config:
    video = tmp_path / "a.mp4"
    if not video.exists():
        video.write_bytes(b"content")
    settings = {
        "performers": [{"kind": "video", "name": "anna", "path": str(video)}, {"kind": "rendered", "name": "doll", "performer_seed": 1_000_001}],
        "drives": [{"kind": "self"}, {"kind": "motion", "name": "dance"}, {"kind": "video", "name": "other", "path": str(video)}],
        "diffusion": {"preset": "tiny"},
    }
    return Config.model_validate(settings | changes)


def test_keys_follow_settings_and_content(tmp_path):
    layout = RunLayout(tmp_path / "run")
    jobs = {job.name: job for job in main_jobs(config(tmp_path), layout)}
    assert list(jobs) == ["anna", "doll", "drive other"]
    assert len({job.key for job in jobs.values()}) == 3
    same = {job.name: job.key for job in main_jobs(config(tmp_path, preprocess={"num_actors": 7}), layout)}
    assert same == {name: job.key for name, job in jobs.items()}
    other = {job.name: job.key for job in main_jobs(config(tmp_path, preprocess={"size": 64}), layout)}
    assert all(other[name] != job.key for name, job in jobs.items())
    fitted = {job.name: job.key for job in main_jobs(config(tmp_path, preprocess={"fit_steps": 7}), layout)}
    assert [fitted[name] == jobs[name].key for name in jobs] == [False, True, False], "a rendered performer has an exact body"
    (tmp_path / "a.mp4").write_bytes(b"changed")
    changed = {job.name: job.key for job in main_jobs(config(tmp_path), layout)}
    assert [changed[name] == jobs[name].key for name in jobs] == [False, True, False]


def test_only_a_marker_with_the_same_key_counts_as_finished(tmp_path):
    layout = RunLayout(tmp_path / "run")
    job = main_jobs(config(tmp_path), layout)[0]
    assert not job.finished
    commit_folder(layout.shard("anna", "main"), lambda folder: None, {"key": "old"})
    assert not main_jobs(config(tmp_path), layout)[0].finished
    commit_folder(layout.shard("anna", "main"), lambda folder: None, {"key": job.key})
    assert main_jobs(config(tmp_path), layout)[0].finished


def test_driving_clips_follow_the_performers_clip(tmp_path):
    layout = RunLayout(tmp_path / "run")
    before = {job.name: job.key for job in driving_jobs(config(tmp_path), layout, {})}
    assert list(before) == ["anna/dance", "anna/other", "doll/dance", "doll/other"]
    commit_folder(layout.shard("anna", "main"), lambda folder: None, {"key": "new"})
    after = {job.name: job.key for job in driving_jobs(config(tmp_path), layout, {})}
    assert [after[name] == before[name] for name in before] == [False, False, True, True]


@pytest.mark.parametrize(
    ("failed", "errors"),
    [
        ({"anna": "no person"}, {"anna/dance": "performer 'anna' has no clip to drive: no person", "doll/dance": None}),
        ({"drive other": "is empty"}, {"anna/other": "driving video of 'other': is empty", "anna/dance": None}),
    ],
)
def test_a_failed_part_fails_the_clips_that_need_it(tmp_path, failed, errors):
    jobs = {job.name: job.error for job in driving_jobs(config(tmp_path), RunLayout(tmp_path / "run"), failed)}
    assert {name: jobs[name] for name in errors} == errors


def test_missing_footage_is_an_error_of_that_clip_alone(tmp_path):
    broken = config(
        tmp_path, performers=[{"kind": "video", "name": "anna", "path": "/nowhere.mp4"}, {"kind": "rendered", "name": "doll", "performer_seed": 1}]
    )
    jobs = {job.name: job.error for job in main_jobs(broken, RunLayout(tmp_path / "run"))}
    assert jobs["anna"] == "/nowhere.mp4: no such file: check the path"
    assert jobs["doll"] is None


def test_a_drive_may_not_take_the_name_of_the_performers_own_clip(tmp_path):
    named = config(tmp_path, drives=[{"kind": "motion", "name": "main"}])
    assert "is taken by the performers' own clips" in driving_jobs(named, RunLayout(tmp_path / "run"), {})[0].error
