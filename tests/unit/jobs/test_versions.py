"""Which versions fit together, and what is said where they do not."""

from __future__ import annotations

import platform

import pytest
import ray

import dpscale
from jobs.versions import Versions, disagreements, own_versions

HERE = Versions("0.1.0", "2.60.0", "3.11.9")


@pytest.mark.parametrize(
    "other",
    [
        HERE,
        Versions("0.1.0", "2.60.3", "3.11.2"),  # patch releases
        Versions(None, "2.60.0", "3.11.9"),  # a cluster does not say what its images hold
        Versions(None, None, None),
    ],
)
def test_these_fit(other: Versions):
    assert disagreements(HERE, other, "the cluster") == []


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (
            Versions("0.2.0", "2.60.0", "3.11.9"),
            "dpscale: 0.1.0 here, 0.2.0 in the image. Use an image with dpscale 0.1.0, or submit from dpscale 0.2.0",
        ),
        (
            Versions("0.1.1", "2.60.0", "3.11.9"),
            "dpscale: 0.1.0 here, 0.1.1 in the image. Use an image with dpscale 0.1.0, or submit from dpscale 0.1.1",
        ),
        (
            Versions("0.1.0", "2.6.0", "3.11.9"),
            "Ray: 2.60 here, 2.6 in the image. Submit from an environment with ray==2.6.*, or start the cluster from an image with Ray 2.60",
        ),
        (
            Versions("0.1.0", "3.60.0", "3.11.9"),
            "Ray: 2.60 here, 3.60 in the image. Submit from an environment with ray==3.60.*, or start the cluster from an image with Ray 2.60",
        ),
        (
            Versions("0.1.0", "2.60.0", "3.12.9"),
            "Python: 3.11 here, 3.12 in the image. Submit from an environment with Python 3.12, or start the cluster from an image with Python 3.11",
        ),
    ],
)
def test_one_that_differs_is_named_with_both_versions_and_the_remedy(other: Versions, line: str):
    assert disagreements(HERE, other, "the image") == [line]


def test_each_that_differs_has_its_line():
    assert [line.split(":")[0] for line in disagreements(HERE, Versions("1", "1.1", "1.1"), "the image")] == ["dpscale", "Ray", "Python"]


def test_own_versions_are_those_of_this_process():
    assert own_versions() == Versions(dpscale.__version__, ray.__version__, platform.python_version())
    assert Versions.of(own_versions().as_dict()) == own_versions()
