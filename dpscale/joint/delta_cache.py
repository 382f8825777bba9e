"""What performers' finetuning changed of the base, in host memory, for as many of them as fit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from dpscale.config.schema import SchedulerConfig
from dpscale.data.types import InputError
from dpscale.diffusion.delta import FINETUNED, Delta, read_delta

_Version = tuple[str, tuple[tuple[int, int, int], ...]]
"""A finetuning folder, and inode, size in bytes and time of change of its files: one that was made again is another one."""


class DeltaCache:
    """The deltas of the performers used last, each read once, oldest out first. Threads may share it."""

    def __init__(self, capacity_bytes: int, pin: bool = False) -> None:
        self._capacity, self._pin = capacity_bytes, pin
        self._entries: OrderedDict[_Version, _Entry] = OrderedDict()
        self._in_use: _Version | None = None
        self._lock = threading.Lock()

    @classmethod
    def of(cls, settings: SchedulerConfig) -> DeltaCache:
        return cls(int(settings.delta_cache_gib * 2**30), pin=settings.refresh_gpus > 0)

    @property
    def num_bytes(self) -> int:
        """Of what is in it or being read, by the size of the files."""
        with self._lock:
            return self._held()

    def take(self, finetuned: Path) -> tuple[Delta, ...]:
        """Deltas of a finished finetuning folder, in the order of FINETUNED; until another one is taken they stay, whatever the capacity.

        Raises InputError where they cannot be read."""
        version = version_of(finetuned)
        with self._lock:
            self._in_use = version
            entry = self._entry(version, finetuned)
        return entry.read()

    def prefetch(self, finetuned: Path) -> bool:
        """Reads them for a later `take`, in place of those used longest ago; false where they do not fit beside those in use.

        Raises InputError where they cannot be read."""
        version = version_of(finetuned)
        with self._lock:
            used = self._entries[self._in_use].num_bytes if self._in_use in self._entries else 0
            if version not in self._entries and used + _size(version) > self._capacity:
                return False
            entry = self._entry(version, finetuned)
        entry.read()
        return True

    def _entry(self, version: _Version, finetuned: Path) -> _Entry:
        if version not in self._entries:
            self._make_room(_size(version))
            self._entries[version] = _Entry(finetuned, _size(version), self._pin)
        self._entries.move_to_end(version)
        return self._entries[version]

    def _make_room(self, num_bytes: int) -> None:
        for version in [version for version in self._entries if version != self._in_use]:
            if self._held() + num_bytes <= self._capacity:
                return
            del self._entries[version]

    def _held(self) -> int:
        return sum(entry.num_bytes for entry in self._entries.values())


class _Entry:
    """Deltas that the first who asks for them reads; who asks meanwhile waits."""

    def __init__(self, finetuned: Path, num_bytes: int, pin: bool) -> None:
        self.num_bytes = num_bytes
        self._finetuned, self._pin = finetuned, pin
        self._deltas: tuple[Delta, ...] | None = None
        self._lock = threading.Lock()

    def read(self) -> tuple[Delta, ...]:
        with self._lock:
            if self._deltas is None:
                self._deltas = tuple(read_delta(self._finetuned / name, self._pin) for name in FINETUNED)
            return self._deltas


def version_of(finetuned: Path) -> _Version:
    """Raises InputError where a file is missing."""
    try:
        found = [(finetuned / name).stat() for name in FINETUNED]
    except OSError as error:
        raise InputError(f"{finetuned} is not there or unfinished ({error}): finetune the performer first") from error
    return str(finetuned), tuple((f.st_ino, f.st_size, f.st_mtime_ns) for f in found)


def _size(version: _Version) -> int:
    return sum(size for _, size, _ in version[1])
