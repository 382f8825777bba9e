"""A store of finished shards at a URL, which machines and runs share; the run folder stays the working copy.

    s3://bucket/prefix?endpoint_override=127.0.0.1:9000&scheme=http    gs://bucket/prefix    file:///folder    a plain path

    <url>/performer=NAME/clip=NAME/{frames.parquet, _COMPLETE.json}

An object store has no rename, so the marker is the commit: it is written last and taken away first. Plain pyarrow reads the store
as it reads a run's `shards/`. Credentials come from the environment, as pyarrow's file systems take them, and never from the URL."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pyarrow import fs

from dpscale.data.checkpoint import MARKER, commit_folder, marker_of
from dpscale.data.layout import safe_name
from dpscale.data.places import Place, place_at
from dpscale.data.shards import FILE_NAME, SCHEMA_VERSION, ShardError, ShardReader
from dpscale.data.store_errors import explained, patiently
from dpscale.data.types import InputError

log = logging.getLogger(__name__)

_BLOCK_BYTES = 8 * 2**20
"""Read or written by one request."""
_LISTING_THREADS = 8
_NAME = re.compile(r"performer=([^/]*)/clip=([^/]*)")


class ShardStore:
    """Finished shards by name, `performer=NAME/clip=NAME`; of each name the one published last.

    Raises InputError for a URL that cannot be used, StoreError if the store fails later, ValueError for another form of name."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._place = place_at(url)

    def __reduce__(self) -> tuple[type[ShardStore], tuple[str]]:
        """Another process opens the store with its own credentials: they do not travel."""
        return ShardStore, (self.url,)

    def check(self) -> None:
        """Writes, reads and removes a small file. Raises InputError: bucket missing, access refused, nothing answers."""
        probe = self._place.below(f"_CHECK-{uuid.uuid4().hex}")
        try:
            probe.write(b"dpscale")
            probe.read()
            probe.remove()
        except OSError as error:
            raise InputError(explained(error, self.url)) from error

    def publish(self, folder: Path, name: str) -> bool:
        """Uploads a finished shard; False if the store has it already (the same key and schema). Raises ShardError if it is not whole."""
        marker = marker_of(folder)
        if marker is None or "key" not in marker:
            raise ShardError(f"{folder}: holds no finished shard with a key: run `dpscale preprocess` with the same settings")
        there = self._marker(name)
        if there is not None and _identity(there) == _identity(marker):
            return False
        patiently(lambda: self._upload(folder, name, marker), self.url)
        return True

    def fetch(self, name: str, folder: Path, key: str) -> bool:
        """Downloads the shard of that name as `folder`, whole or not at all; False if the store has none with this key.

        A shard whose bytes are not those that its marker vouches for is withdrawn from the store, so that the next one published repairs it."""
        marker = None
        for _ in range(2):  # someone may have replaced it meanwhile
            marker = self._marker(name)
            if marker is None or _identity(marker) != (key, SCHEMA_VERSION):
                return False
            if self._download(name, folder, marker):
                return True
        log.warning("the store %s: %s is damaged (its sha256 is not its marker's) and was withdrawn", self.url, name)
        if marker == self._marker(name):
            self._withdraw(name)
        return False

    def open(self, name: str) -> ShardReader:
        """Random access without a download: only the row groups of the frames asked for travel. Raises ShardError."""
        return _open(self._folder(name), self.url)

    def keys(self) -> dict[str, str]:
        """Key of every finished shard, by name."""
        names = patiently(self._names, self.url)
        with ThreadPoolExecutor(_LISTING_THREADS) as pool:
            markers = pool.map(self._marker, names)
            return {name: str(marker["key"]) for name, marker in zip(names, markers, strict=True) if marker and "key" in marker}

    def remove(self, name: str) -> None:
        """Removes a shard, finished or not, if there is one."""
        self._withdraw(name)
        patiently(self._folder(name).below(FILE_NAME).remove, self.url)

    def _folder(self, name: str) -> Place:
        match = _NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"the shard's name {name!r} is not of the form performer=NAME/clip=NAME")
        performer, clip = match.groups()
        return self._place.below(f"performer={safe_name(performer)}/clip={safe_name(clip)}")

    def _names(self) -> list[str]:
        selector = fs.FileSelector(self._place.path, recursive=True, allow_not_found=True)
        paths = [info.path.removeprefix(self._place.path).strip("/") for info in self._place.filesystem.get_file_info(selector)]
        return sorted(path.removesuffix(f"/{MARKER}") for path in paths if re.fullmatch(f"{_NAME.pattern}/{MARKER}", path))

    def _marker(self, name: str) -> dict[str, Any] | None:
        return patiently(lambda: _marker(self._folder(name)), self.url)

    def _withdraw(self, name: str) -> None:
        patiently(self._folder(name).below(MARKER).remove, self.url)

    def _upload(self, folder: Path, name: str, marker: dict[str, Any]) -> None:
        there = self._folder(name)
        there.below(MARKER).remove()
        with (folder / FILE_NAME).open("rb") as source, there.below(FILE_NAME).output() as sink:
            sha256 = _copy(source, sink)
        if sha256 != marker.get("sha256"):
            raise ShardError(f"{folder}: its bytes are not those that were written: delete the folder and preprocess again")
        there.below(MARKER).write((folder / MARKER).read_bytes())

    def _download(self, name: str, folder: Path, marker: dict[str, Any]) -> bool:
        """False if the bytes are missing or not the marker's."""

        def write(target: Path) -> None:
            if patiently(lambda: self._download_file(name, target / FILE_NAME), self.url) != marker.get("sha256"):
                raise _Damaged

        try:
            commit_folder(folder, write, marker)
        except _Damaged:
            return False
        return True

    def _download_file(self, name: str, path: Path) -> str | None:
        """sha256 of what came; None where the store has no such file."""
        try:
            source = self._folder(name).below(FILE_NAME).input()
        except FileNotFoundError:
            return None
        with source, path.open("wb") as sink:
            return _copy(source, sink)


def open_shard(url: str) -> ShardReader:
    """Random access to the shard in a folder at a URL, without a download. Raises ShardError, InputError, StoreError.

    Columns that are read later raise OSError if the store fails by then. The sha256 is not checked: that would take all bytes."""
    return _open(place_at(url), url)


class _Damaged(Exception):
    pass


def _open(folder: Place, url: str) -> ShardReader:
    where = f"the store {url}: {folder.path}"
    if patiently(lambda: _marker(folder), url) is None:
        raise ShardError(f"{where}: holds no finished shard: publish it first")
    return ShardReader.of_file(patiently(folder.below(FILE_NAME).parquet, url), where)


def _marker(folder: Place) -> dict[str, Any] | None:
    """None also where it is half written: then its shard is not finished."""
    try:
        marker = json.loads(folder.below(MARKER).read())
    except (FileNotFoundError, ValueError):
        return None
    return marker if isinstance(marker, dict) else None


def _identity(marker: dict[str, Any]) -> tuple[Any, Any]:
    return marker.get("key"), marker.get("schema")


def _copy(source: Any, sink: Any) -> str:
    """sha256 of what was copied."""
    digest = hashlib.sha256()
    while block := source.read(_BLOCK_BYTES):
        digest.update(block)
        sink.write(block)
    return digest.hexdigest()
