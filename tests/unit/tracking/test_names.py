from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name, _validate_model_name, _validate_param_name, _validate_tag_name

from dpscale.tracking.names import MAX_NAME, model_name, safe_key, safe_text, shown

HOSTILE = [
    "", ".", "..", "..x", "/", "../../etc/passwd", "a//b", "/a", "a/", "a/./b", "\0", "x" * 5000, "l\u00f6ss", "\u03c8(t)", "a:b", "\ud800", "a\nb",
    "' OR 1=1 --",
]  # fmt: skip


def test_good_names_stay_as_they_are():
    for name in ("loss", "denoiser_loss", "ivr_opt/psnr_body", "system/node-1.local/cpu_utilization_percentage", "a b"):
        assert safe_key(name) == name


@given(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=400)))
def test_mlflow_takes_every_name(name):
    safe = safe_key(name)
    for check in (_validate_metric_name, _validate_param_name, _validate_tag_name):
        check(safe)
    assert 0 < len(safe) <= MAX_NAME
    _validate_model_name(model_name("dpscale", name))
    _validate_model_name(model_name(name or "x", "ann"))
    assert "'" not in model_name(name, name)  # it stands in a filter


@given(st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=300)), unique=True, max_size=20))
def test_different_names_stay_different(names):
    assert len({safe_key(name) for name in names}) == len(names)


def test_texts_lose_what_databases_refuse_and_what_is_too_long():
    assert safe_text("a\0b\tc\nd", 100) == "a\ufffdb\tc\nd"
    assert safe_text("\ud800", 10).encode() == b"\xef\xbf\xbd"
    assert safe_text("x" * 100, 10) == "x" * 10
    assert safe_text(None, 10) == "None"


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("postgresql+psycopg2://ann:se@cret@db:5432/mlflow?password=x", "postgresql+psycopg2://db:5432/mlflow"),
        ("http://user:pass@host:5000/path", "http://host:5000/path"),
        ("sqlite:////tmp/a@b/mlflow.db", "sqlite:////tmp/a@b/mlflow.db"),
        ("http://host", "http://host"),
        ("", ""),
    ],
)
def test_passwords_are_not_shown(uri, text):
    assert shown(uri) == text
