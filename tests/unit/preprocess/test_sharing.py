"""Shards go to a store and come to another run from it; a store that fails stops nothing."""

from dataclasses import replace

import numpy as np
import pytest

from dpscale.data import remote
from dpscale.data.layout import RunLayout
from dpscale.data.shards import read_clip, write_clip
from dpscale.data.store_errors import StoreError
from dpscale.preprocess.manifest import Job
from dpscale.preprocess.sharing import fetched, shared
from tests.unit.data.conftest import s3_address, s3_url, url  # noqa: F401
from tests.unit.data.test_shards import make_clip

JOB = Job("main", "anna", "anna", "", "source", "abc", False)


@pytest.fixture
def here(tmp_path) -> RunLayout:
    layout = RunLayout(tmp_path / "here")
    write_clip(layout.shard("anna", "main"), make_clip())
    return layout


def test_what_one_run_made_another_fetches(here, tmp_path, url):  # noqa: F811
    there = RunLayout(tmp_path / "there")
    assert [job.finished for job in fetched(url, there, [JOB])] == [False]
    assert shared(url, here, "anna", "main") == ""
    assert [job.finished for job in fetched(url, there, [JOB, replace(JOB, error="broken"), replace(JOB, kind="movement")])] == [True, False, False]
    np.testing.assert_array_equal(read_clip(there.shard("anna", "main")).frames, make_clip().frames)


def test_another_key_is_not_taken(here, tmp_path, url):  # noqa: F811
    shared(url, here, "anna", "main")
    assert [job.finished for job in fetched(url, RunLayout(tmp_path / "there"), [replace(JOB, key="other")])] == [False]


def test_what_was_finished_before_there_was_a_store_is_shared(here, tmp_path, url):  # noqa: F811
    assert [job.finished for job in fetched(url, here, [replace(JOB, finished=True)])] == [True]
    assert [job.finished for job in fetched(url, RunLayout(tmp_path / "there"), [JOB])] == [True]


def test_a_store_that_fails_is_named_and_stops_nothing(here, tmp_path, monkeypatch):
    def fail(*_):
        raise StoreError("s3://gone: no answer")

    monkeypatch.setattr(remote.ShardStore, "publish", fail)
    monkeypatch.setattr(remote.ShardStore, "fetch", fail)
    assert shared(str(tmp_path / "store"), here, "anna", "main") == "finished, not shared: s3://gone: no answer"
    assert [job.finished for job in fetched(str(tmp_path / "store"), here, [JOB])] == [False]
