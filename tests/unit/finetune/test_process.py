"""What has to hold before a process computes anything."""

from __future__ import annotations

import os

import pytest
import torch

from dpscale.config.schema import Config
from dpscale.finetune.process import prepare_process, set_defaults


def test_threads_are_as_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    prepare_process(Config.model_validate({"ray": {"torch_threads": 1}}))
    assert torch.get_num_threads() == 1
    assert os.environ["LOCAL_RANK"] == "0"


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DPSCALE_TEST_A", "user")
    monkeypatch.delenv("DPSCALE_TEST_B", raising=False)
    set_defaults({"DPSCALE_TEST_A": "ours", "DPSCALE_TEST_B": "ours"})
    assert (os.environ["DPSCALE_TEST_A"], os.environ.pop("DPSCALE_TEST_B")) == ("user", "ours")
