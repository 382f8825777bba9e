from __future__ import annotations

import subprocess
import sys

PINNED = """
import sys
import numpy as np
from dpscale.data.heap import keep_heap_small

if sys.argv[1] == "kept":
    keep_heap_small()


def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20


large = np.empty(2**24, np.uint8)
del large  # glibc learns that blocks of this size come and go
before, pinned, kept = resident(), [], []
for n in range(200):
    kept.append(np.ones(2**20 + 2**17, np.uint8))  # a picture ...
    pinned.append(bytes(5000))  # ... and what stays of it
kept.clear()
print(resident() - before)
"""


def left_mib(how: str) -> float:
    return float(subprocess.run([sys.executable, "-c", PINNED, how], capture_output=True, text=True, check=True).stdout)


def test_what_stays_of_pictures_does_not_pin_their_room():
    assert left_mib("glibc's own way") > 150
    assert left_mib("kept") < 80


FREED = """
from dpscale.data.heap import trim_heap


def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20


blocks, pins = [], []
for n in range(2000):
    blocks.append(bytearray(100_000))
    pins.append(bytearray(5000))  # lies after it on the heap, and stays
blocks.clear()
before = resident()
trim_heap()
print(before - resident())
"""


def test_what_was_freed_goes_back_to_the_system():
    assert float(subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True).stdout) > 100
