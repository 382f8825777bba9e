"""The zip that travels with a submitted job: this checkout, the resolved settings and who sent them."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from dpscale.data.types import InputError
from jobs.secret_values import refuse_secret_values
from jobs.working_tree import files

MAX_BYTES = 100 * 2**20 - 2**16
"""Ray's dashboard takes 100 MiB in one request (ray_constants.DASHBOARD_CLIENT_MAX_SIZE)."""


def write_package(path: Path, tree: Path | None, added: Mapping[str, bytes], secrets: Mapping[str, str]) -> int:
    """Writes the zip, with equal bytes for equal content, so that Ray uploads it once; returns the number of files.

    `secrets`: values that must not be in it, by name. Raises InputError for those, and for more than Ray takes."""
    sizes: Counter[str] = Counter()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as package:
        for name, mode, content in _contents(tree, added):
            refuse_secret_values(name, content, secrets)
            entry = zipfile.ZipInfo(name)  # dated 1980
            entry.external_attr = mode << 16
            package.writestr(entry, content, zipfile.ZIP_DEFLATED)
            sizes["/".join(name.split("/")[:2])] += package.getinfo(name).compress_size
            if sizes.total() > MAX_BYTES:
                raise InputError(_too_large(tree, sizes))
        return len(package.namelist())


def _contents(tree: Path | None, added: Mapping[str, bytes]) -> Iterator[tuple[str, int, bytes]]:
    for name in files(tree) if tree else ():
        if tree and name not in added:
            yield name, (tree / name).stat().st_mode & 0o755 | 0o644, (tree / name).read_bytes()
    for name, content in added.items():
        yield name, 0o644, content


def _too_large(tree: Path | None, sizes: Counter[str]) -> str:
    largest = ", ".join(f"{name} ({size / 2**20:.0f} MiB)" for name, size in sizes.most_common(3))
    return (
        f"{tree}: more than the {MAX_BYTES / 2**20:.0f} MiB that Ray takes with a job; largest so far: {largest}. "
        "Add to .gitignore what the job does not need, and put data on storage that the cluster sees"
    )
