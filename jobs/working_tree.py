"""The files of this checkout that a submitted job needs: what git keeps or would keep, without junk, data and secrets."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CHECKOUT = Path(__file__).resolve().parents[1]

_JUNK = re.compile(
    r"(^|/)(\.git|\.venv|venv|__pycache__|\.[a-z_]*_?cache|\.hypothesis|\.ipynb_checkpoints|node_modules|build|dist|[^/]*\.egg-info)(/|$)"
    r"|^(runs|data|datasets|mlruns|mlartifacts|shared|outputs)/"
    r"|\.(mp4|mov|avi|mkv|webm|parquet|db|sqlite|pyc|zip|tar|gz|log)$"
)
_SECRET = re.compile(
    r"(^|/)(\.env[^/]*|\.netrc|\.pgpass|\.aws|\.ssh|\.kube|id_[a-z0-9]+|auth_token|credentials[^/]*|[^/]*\.(pem|key|p12))(/|$)", re.IGNORECASE
)


def checkout() -> Path | None:
    """The checkout that this code runs from; None where it is an installed package: then the image's own is used."""
    return CHECKOUT if (CHECKOUT / "pyproject.toml").is_file() else None


def files(tree: Path) -> list[str]:
    """Paths below `tree`, sorted. A link that leads out of the tree is left out: it would take along what nobody named."""
    return sorted(name for name in _listed(tree) if not _is_unwanted(name) and _lies_inside(tree / name, tree.resolve()))


def _listed(tree: Path) -> Iterator[str]:
    command = ["git", "-C", str(tree), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        yield from _walked(tree)
    else:
        yield from (os.fsdecode(name) for name in listing.split(b"\0") if name)


def _walked(tree: Path) -> Iterator[str]:
    for folder, subfolders, names in os.walk(tree):
        place = PurePosixPath(Path(folder).relative_to(tree).as_posix())
        subfolders[:] = [name for name in subfolders if not _is_unwanted(f"{place / name}/")]
        yield from (str(place / name) for name in names)


def _is_unwanted(name: str) -> bool:
    return bool(_JUNK.search(name) or _SECRET.search(name))


def _lies_inside(path: Path, tree: Path) -> bool:
    return path.is_file() and path.resolve().is_relative_to(tree)
