"""Mapped arrays equal numpy's own, and files that cannot be used say why."""

import zipfile

import numpy as np
import pytest
import torch

from dpscale.data.types import InputError
from dpscale.preprocess import npz_mapped as module
from dpscale.preprocess.npz_mapped import mapped_npz

ARRAYS = {
    "large": np.random.default_rng(0).normal(size=(5, 40_000, 3)).astype(np.float32),
    "columns": np.asfortranarray(np.arange(600_000, dtype=np.int64).reshape(300, 2000)),
    "scalar": np.array(1.5),
    "empty": np.zeros((0, 3)),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_equals_numpys_own_reading(tmp_path, save):
    save(tmp_path / "a.npz", **ARRAYS)
    found = mapped_npz(tmp_path / "a.npz")
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert isinstance(found["large"], np.memmap) == (save is np.savez)
    assert not isinstance(found["scalar"], np.memmap)


def test_a_flipped_bit_is_found(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **ARRAYS)
    data = bytearray(path.read_bytes())
    data[1_000_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.npz.*damaged.*copy or save it again"):
        mapped_npz(path)


def test_a_file_that_was_cut_off_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **ARRAYS)
    path.write_bytes(path.read_bytes()[:-500_000])
    with pytest.raises(InputError, match=r"a\.npz"):
        mapped_npz(path)


def test_pickles_are_not_read(tmp_path):
    np.savez(tmp_path / "objects.npz", results=np.array({"verts": 1}, dtype=object))
    torch.save({"verts": torch.zeros(3)}, tmp_path / "results.pt")
    np.save(tmp_path / "verts.npy", np.zeros(3))
    with pytest.raises(InputError, match=r"objects\.npz: results: holds Python objects.*save plain arrays"):
        mapped_npz(tmp_path / "objects.npz")
    with pytest.raises(InputError, match=r"results\.pt.*no array.*numpy\.savez"):
        mapped_npz(tmp_path / "results.pt")
    with pytest.raises(InputError, match=r"verts\.npy: is not an \.npz file"):
        mapped_npz(tmp_path / "verts.npy")


def test_a_member_that_is_no_array_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("vertices.npy", b"not an array")
    with pytest.raises(InputError, match=r"a\.npz: vertices: has no header"):
        mapped_npz(tmp_path / "a.npz")


def test_what_must_be_held_whole_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MOST_COMPRESSED_BYTES", 1000)
    np.savez_compressed(tmp_path / "a.npz", vertices=np.zeros(1000))
    with pytest.raises(InputError, match=r"vertices: has .* compressed: write it with numpy\.savez"):
        mapped_npz(tmp_path / "a.npz")
