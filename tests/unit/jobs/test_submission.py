"""A job's settings go through the cluster's metadata and come back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpscale.config.load import ConfigError, check, load
from dpscale.data.types import InputError
from jobs.submission import Submission, checked_id, new_id

CONFIGS = Path(__file__).parents[3] / "jobs" / "configs"


@pytest.mark.parametrize("name", ["demo.toml", "tiny.toml", "sd21.toml"])
def test_settings_come_back_whole(name: str):
    sent = Submission("demo", load(CONFIGS / name), ("--retry-quarantined",))
    metadata = json.loads(json.dumps(sent.metadata()))
    assert all(isinstance(value, str) for value in metadata.values()), "Ray takes texts alone"
    assert Submission.of("id", metadata) == sent


def test_defaults_are_not_repeated():
    assert json.loads(Submission("demo", check({"joint": {"steps": 7}})).metadata()["dpscale_config"]).keys() == {"joint"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dpscale_job": None}, "was not sent by `dpscale JOB --submit`"),
        ({"dpscale_job": "export; rm -rf /"}, "was not sent by"),
        ({"dpscale_config": "{"}, "cannot be read"),
        ({"dpscale_config": '{"joint": {"stepps": 1}}'}, "there is no such setting"),
        ({"dpscale_config": '{"run": {"name": "../../etc"}}'}, "run.name"),
    ],
)
def test_what_others_wrote_is_checked(changed: dict[str, str | None], message: str):
    metadata = {**Submission("demo", check({})).metadata(), **changed}
    with pytest.raises((InputError, ConfigError), match=message):
        Submission.of("id", {name: text for name, text in metadata.items() if text is not None})


def test_flags_that_others_wrote_are_dropped():
    metadata = {**Submission("demo", check({})).metadata(), "dpscale_flags": "--out=/etc --retry-quarantined"}
    assert Submission.of("id", metadata).flags == ("--retry-quarantined",)


def test_ids_are_new_and_lead_nowhere_else():
    config = check({"run": {"name": "Batch_1.a"}})
    assert new_id(config) != new_id(config)
    assert checked_id(new_id(config)).startswith("dpscale-Batch_1.a-")
    for wrong in ("../../api/serve", "a/b", "", ".hidden", "a..b", "a?b", "a b", "a\n"):
        with pytest.raises(InputError):
            checked_id(wrong)
