from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fit_quality
from tests.unit.field.small_field import SMALL

ROOT = Path(__file__).parents[3]


def test_a_fit_gets_better_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpscale.config.schema.FieldConfig", lambda: SMALL)
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    rows = list(fit_quality.fit(np.stack([picture] * 3), "cpu", 200, float("inf")))
    assert [row["step"] for row in rows][-1] == 200
    assert rows[-1]["psnr_db"] > rows[0]["psnr_db"] + 3
    assert list(fit_quality.fit(np.stack([picture] * 3), "cpu", 200, 0.0))[-1]["step"] == 1, "no step begins when the time is spent"


def test_it_needs_torch_numpy_and_pydantic_alone() -> None:
    """On a machine without anything else: every other import is refused."""
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {'jaxtyping', 'rich', 'psutil', 'scipy', 'PIL', 'diffusers', 'ray', 'safetensors', 'pyarrow', 'av'}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import importlib.util
find = importlib.util.find_spec
def missing(name):
    try:
        return find(name)
    except ModuleNotFoundError:
        return None
importlib.util.find_spec = missing
from benchmarks import fit_quality
fit_quality._stand_in_for_jaxtyping()
import dpscale.field.loss, dpscale.field.video_field
print('fine')
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "fine", done.stderr
