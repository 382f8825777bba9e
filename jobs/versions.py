"""What must agree between the machine that submits, the cluster, and the image that runs the job."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import dpscale


@dataclass(frozen=True)
class Versions:
    """Of one machine; None: not known."""

    dpscale: str | None
    ray: str | None
    python: str | None

    @classmethod
    def of(cls, texts: Mapping[str, str | None]) -> Versions:
        return cls(texts.get("dpscale"), texts.get("ray"), texts.get("python"))

    def as_dict(self) -> dict[str, str | None]:
        return asdict(self)


def own_versions() -> Versions:
    import ray  # a second, and only those who submit need it

    return Versions(dpscale.__version__, ray.__version__, platform.python_version())


def disagreements(client: Versions, other: Versions, place: str) -> list[str]:
    """One line per version that does not fit, with both versions and the remedy. `place`: "the cluster", "the job's image".

    dpscale must be the same; of Ray and Python major and minor, for Ray pickles functions and speaks a protocol of its own."""
    pairs = {
        "dpscale": (client.dpscale, other.dpscale),
        "Ray": (_minor(client.ray), _minor(other.ray)),
        "Python": (_minor(client.python), _minor(other.python)),
    }
    return [
        f"{name}: {ours} here, {theirs} in {place}. {_REMEDIES[name].format(ours=ours, theirs=theirs)}"
        for name, (ours, theirs) in pairs.items()
        if ours and theirs and ours != theirs
    ]


_REMEDIES = {
    "dpscale": "Use an image with dpscale {ours}, or submit from dpscale {theirs}",
    "Ray": "Submit from an environment with ray=={theirs}.*, or start the cluster from an image with Ray {ours}",
    "Python": "Submit from an environment with Python {theirs}, or start the cluster from an image with Python {ours}",
}


def _minor(version: str | None) -> str | None:
    """2.60 of 2.60.0rc1."""
    return ".".join(version.split(".")[:2]) if version else None
