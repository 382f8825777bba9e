from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dpscale.config.schema import HashGridConfig
from dpscale.field import native
from dpscale.field.grids import hash_grid
from dpscale.field.hash_grid import HashGrid
from dpscale.field.hash_grid_fused import FusedHashGrid
from tests.unit.field.small_field import small_field


@pytest.fixture(autouse=True)
def forget_the_library() -> Iterator[None]:
    native.library.cache_clear()
    yield
    native.library.cache_clear()


@pytest.fixture
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("CXX", "/nowhere/g++")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_the_reference_works_after_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="dpscale"):
        field = small_field()
        colours = field(torch.rand(5, 3))
        next(field.render())
    assert type(field.deformation.grid) is HashGrid
    assert colours.shape == (5, 3)
    ours = [record.getMessage() for record in caplog.records if record.name == "dpscale.field.native"]
    assert len(ours) == 1
    assert "install a C++ compiler" in ours[0]


def test_with_a_library_the_grid_is_fused() -> None:
    if native.library() is None:
        pytest.skip("no C++ compiler")
    assert isinstance(hash_grid(HashGridConfig(n_levels=2, log2_hashmap_size=8), 2, torch.Generator().manual_seed(0)), FusedHashGrid)


def test_many_who_ask_at_once_compile_once_and_see_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    compiled, seen = [], []
    together = threading.Barrier(4)

    def slowly(path: Path) -> None:
        compiled.append(path)
        threading.Event().wait(0.2)
        path.write_text("whole")

    def ask() -> None:
        together.wait()
        seen.append(native.compiled().read_text())

    monkeypatch.setattr(native, "_compile", slowly)
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == ["whole"] * 4
    assert len(compiled) == 1


def test_other_sources_flags_and_processors_have_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {native.library_path(), native.library_path()}
    assert len(paths) == 1
    monkeypatch.setattr(native, "FLAGS", ("-O0",))
    paths.add(native.library_path())
    monkeypatch.setattr(native, "_processor", lambda: "another")
    paths.add(native.library_path())
    changed = tmp_path / "changed.cpp"
    changed.write_text("// changed")
    monkeypatch.setattr(native, "SOURCES", (*native.SOURCES[1:], changed))
    paths.add(native.library_path())
    assert len(paths) == 4
