"""The C++ sources of this folder as one shared library: compiled once, then loaded from where torch keeps compiled extensions.

`make setup` compiles it; a process that finds none compiles it at first use. The file's name follows from sources, flags and processor,
so that a change compiles anew and machines that share a disk do not share machine code. It is built in a folder of its own and renamed
into place under a lock: any number of processes may ask at once, and none sees half a file.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import logging
import os
import platform
import re
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

log = logging.getLogger(__name__)

SOURCES = tuple(sorted(Path(__file__).parent.glob("*.cpp")))
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math")
"""No -ffast-math: sums keep their order, and NaN stays NaN."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where there is no compiler, which is said once."""
    try:
        return ctypes.CDLL(str(compiled()))
    except (OSError, RuntimeError) as problem:
        log.warning(
            "the field's C++ kernels cannot be had (%s): its plain torch reference takes their place, which is several times slower. "
            "Remedy: install a C++ compiler with OpenMP (Debian: g++) and run `make setup` again", str(problem).strip().splitlines()[0],
        )  # fmt: skip
        return None


def compiled() -> Path:
    """Where the library lies; compiles it first where it is missing. RuntimeError or OSError: it cannot be compiled."""
    path = library_path()
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel of the system drops it, however the process ends
        if not path.exists():
            _compile(path)
    return path


def library_path() -> Path:
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or _default_folder()) / "dpscale_field" / f"dpscale_field_{_digest()}.so"


def _default_folder() -> str:
    """Where `make setup` puts it, as jobs/ray_settings.py tells the workers; outside a virtual environment torch's own place."""
    if sys.prefix != sys.base_prefix:
        return str(Path(sys.prefix) / "torch_extensions")
    from torch.utils.cpp_extension import get_default_build_root  # the module looks for CUDA when imported, and says so

    return get_default_build_root()


def _digest() -> str:
    parts = [*(source.read_text() for source in SOURCES), *_flags(), torch.__version__, _processor()]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def _flags() -> tuple[str, ...]:
    # gcc prefers half of a vector register on processors that have AVX-512.
    return (*FLAGS, "-mprefer-vector-width=512") if platform.machine() in ("x86_64", "AMD64") else FLAGS


def _processor() -> str:
    """What -march=native looks at."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line for line in lines if re.match(r"(flags|Features)\s*:", line)), platform.machine())


def _compile(path: Path) -> None:
    from torch.utils import cpp_extension

    with tempfile.TemporaryDirectory(dir=path.parent) as folder, _ninja_on_path():
        name = path.stem
        cpp_extension.load(
            name, [str(source) for source in SOURCES], extra_cflags=list(_flags()), extra_ldflags=["-fopenmp"], build_directory=folder,
            is_python_module=False,
        )  # fmt: skip
        (Path(folder) / f"{name}.so").replace(path)


@contextmanager
def _ninja_on_path() -> Iterator[None]:
    """ninja lies beside the interpreter, which need not be on PATH."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), str(Path(sys.executable).parent), before])
    try:
        yield
    finally:
        os.environ["PATH"] = before


def pointer(tensor: Tensor) -> ctypes.c_void_p:
    """Address of contiguous CPU memory."""
    assert tensor.is_contiguous(), "kernels read contiguous memory"
    assert tensor.device.type == "cpu", tensor.device
    return ctypes.c_void_p(tensor.data_ptr())


def threads() -> ctypes.c_int:
    """As many as torch uses."""
    return ctypes.c_int(torch.get_num_threads())


def with_huge_pages(tensor: Tensor) -> Tensor:
    """Asks for huge pages below memory that nobody has written to yet, where Linux has them to give."""
    kernels = library() if tensor.device.type == "cpu" and tensor.numel() else None
    if kernels is not None:
        kernels.dpscale_advise_huge_pages(ctypes.c_void_p(tensor.data_ptr()), ctypes.c_int64(tensor.numel() * tensor.element_size()))
    return tensor


if __name__ == "__main__":
    print(compiled())
