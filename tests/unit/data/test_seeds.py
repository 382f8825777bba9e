"""Seeds depend on what they are for and on nothing else."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from dpscale.data.seeds import derive

FINETUNE_MAN, ONE = 8037736592518331259, 3874038210105081456


def test_values_are_fixed_for_ever():
    """A change here changes every result of every run."""
    code = "from dpscale.data.seeds import derive; print(derive(0, 'finetune', 'man'), derive(1))"
    other_process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [derive(0, "finetune", "man"), derive(1)] == [int(text) for text in other_process] == [FINETUNE_MAN, ONE]


@given(st.integers(0, 2**31 - 1), st.lists(st.one_of(st.text(max_size=5), st.integers(0, 9)), max_size=4))
def test_seeds_fit_63_bits(seed: int, names: list[str | int]):
    assert 0 <= derive(seed, *names) < 2**63


def test_what_a_seed_is_for_separates_it():
    seeds = {derive(0, "a", "b"), derive(0, "b", "a"), derive(0, "ab"), derive(1, "a", "b"), derive(0, "a", "b", 0), derive(0, "a", "b", 1)}
    assert len(seeds) == 6
