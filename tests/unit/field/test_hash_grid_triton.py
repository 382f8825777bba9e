"""The Triton kernels: in Triton's interpreter against the C++ ones, compiled for CUDA, and, where there is a GPU, on it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from dpscale import field
from dpscale.config.schema import FieldConfig, HashGridConfig
from dpscale.field import adam, hash_grid_fused
from dpscale.field.adam import LazyAdam, lazy_update, new_moment, optimizer_of
from dpscale.field.hash_grid import HashGrid
from dpscale.field.hash_grid_fused import FusedHashGrid
from dpscale.field.table import AdamStep
from dpscale.field.video_field import VideoField

pytest.importorskip("triton", reason="triton is not installed")

SMALL = HashGridConfig(n_levels=3, n_features_per_level=2, log2_hashmap_size=8, base_resolution=3, per_level_scale=2.6)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def triton_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without CUDA: interpreted, and in place of the C++ kernels."""
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    module = _triton_module()
    if DEVICE == "cpu":
        monkeypatch.setattr(hash_grid_fused, "kernels", lambda points: module)
        monkeypatch.setattr(adam, "kernels", lambda points: module)


def _triton_module() -> types.ModuleType:
    """The module without the tests' shape checks: Triton reads the source of its kernels, and would find the check's wrapper instead."""
    name = "dpscale.field.hash_grid_triton"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(hash_grid_fused.__file__).with_name("hash_grid_triton.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
        field.hash_grid_triton = sys.modules[name]
    return sys.modules[name]


def pair(settings: HashGridConfig, num_dims: int, dtype: torch.dtype) -> tuple[FusedHashGrid, HashGrid]:
    fused, plain = (kind(settings, num_dims, torch.Generator().manual_seed(0)).to(DEVICE, dtype) for kind in (FusedHashGrid, HashGrid))
    with torch.no_grad():
        plain.table.copy_(torch.rand(plain.table.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1)
        fused.table.copy_(plain.table.t())
    return fused, plain


def points(num_dims: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    return (torch.rand(count, num_dims, dtype=dtype, generator=torch.Generator().manual_seed(2)) * 1.4 - 0.2).to(DEVICE)


def gradients(grid: HashGrid, at: torch.Tensor) -> tuple[torch.Tensor, ...]:
    at = at.clone().requires_grad_()
    values = grid(at)
    weights = torch.rand(values.shape, dtype=values.dtype, generator=torch.Generator().manual_seed(3)).to(DEVICE)
    return values.detach(), *torch.autograd.grad((values * weights).sum(), (at, grid.table))


@pytest.mark.parametrize(("num_dims", "features"), [(2, 1), (3, 2)])
def test_values_and_gradients_equal_the_reference(num_dims: int, features: int) -> None:
    fused, plain = pair(SMALL.model_copy(update={"n_features_per_level": features}), num_dims, torch.float64)
    assert 0 < fused.num_dense < SMALL.n_levels
    at = points(num_dims, 140, torch.float64)
    expected = gradients(plain, at)
    for one, other in zip(gradients(fused, at), (*expected[:2], expected[2].t()), strict=True):
        torch.testing.assert_close(one, other)


def test_no_points() -> None:
    fused, _ = pair(SMALL, 3, torch.float32)
    values, for_points, for_table = gradients(fused, points(3, 0, torch.float32))
    assert (values.shape, for_points.shape) == ((0, 6), (0, 3))
    assert not for_table.any()


@pytest.mark.parametrize("table_dtype", ["float32", "bfloat16"])
def test_adam_follows_the_rule_in_plain_torch(table_dtype: str) -> None:
    """Beside the reference grid under lazy_update; sums in another order may decide how the last bit of a bfloat16 is rounded."""
    fused, _ = pair(SMALL.model_copy(update={"table_dtype": table_dtype}), 2, getattr(torch, table_dtype))
    table, twin = fused.table.detach(), fused.table.detach().clone()
    moments, twins = ([new_moment(table) for _ in range(2)] for _ in range(2))
    for number in (1, 2):
        gradient = torch.randn(table.shape, generator=torch.Generator().manual_seed(number)).to(DEVICE)
        gradient[torch.rand(table.shape, generator=torch.Generator().manual_seed(9 + number)).to(DEVICE) < 0.5] = 0
        now = AdamStep.at(number, 1e-2, (0.9, 0.99), 1e-15)
        lazy_update(twin, *twins, gradient, now)
        _triton_module().adam_update(table, *moments, gradient, now)
        assert not gradient.any(), "cleared for the next step"
    torch.testing.assert_close(table, twin, rtol=2**-7 if table_dtype == "bfloat16" else 1e-5, atol=1e-6)
    assert (table != twin).float().mean() < (1e-2 if table_dtype == "bfloat16" else 1)
    torch.testing.assert_close(moments, twins)


def test_a_step_equals_the_reference_under_lazy_adam() -> None:
    grids = pair(SMALL, 2, torch.float32)
    at = points(2, 60, torch.float32)
    for grid in grids:
        optimizer = LazyAdam(grid, 1e-2, (0.9, 0.99), 1e-15)
        for _ in range(2):
            optimizer.zero_grad()
            grid(at).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(grids[0].table, grids[1].table.t(), rtol=0, atol=1e-5)


def test_the_kernels_compile_for_cuda_without_a_gpu() -> None:
    """In a process of its own, where nothing is interpreted."""
    done = subprocess.run([sys.executable, "-c", _COMPILE], capture_output=True, text=True, check=False, env={**os.environ, "TRITON_INTERPRET": "0"})
    assert done.stdout.split() == ["_encode", "_point_gradient", "_table_gradient", "_adam"], done.stderr[-3000:]


_COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from dpscale.field import hash_grid_triton as module

types = {name: "*fp32" for name in ("points", "table", "features", "gradient", "result", "into", "mean", "square")}
types |= {"levels": "*i64"} | {name: "i32" for name in ("samples", "mask", "LF", "num_levels", "size", "step")}
types |= {name: "fp32" for name in ("rest1", "beta2", "rest2", "eps", "step_size", "root_correction")}
constants = {"D": 3, "F": 2, "BLOCK": 128, "ROUND": True}
for name in ("_encode", "_point_gradient", "_table_gradient", "_adam"):
    kernel = getattr(module, name)
    own = {k: v for k, v in constants.items() if k in kernel.arg_names}
    signature = {k: types.get(k, "constexpr") for k in kernel.arg_names}
    if name == "_adam":
        signature["table"] = "*bf16"
    source = ASTSource(kernel, signature, {(kernel.arg_names.index(k),): v for k, v in own.items()})
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]
    print(name)
"""


@pytest.mark.requires_gpu
def test_on_a_gpu_full_size_grids_equal_the_reference() -> None:
    """float32 at METHOD.md's sizes; resolutions up to 3800 multiply a coordinate's rounding."""
    for settings, num_dims in ((FieldConfig().deformation_grid, 3), (FieldConfig().canonical_grid, 2)):
        fused, plain = pair(settings, num_dims, torch.float32)
        at = points(num_dims, 16384, torch.float32)
        values, for_points, for_table = gradients(fused, at)
        expected = gradients(plain, at)
        # One rounds x * resolution before it subtracts the cell, one does not: 2^-24 of 2000 (2D: 3800), twice, on features of about 1.
        torch.testing.assert_close(values, expected[0], rtol=0, atol=1e-3)
        torch.testing.assert_close(for_points, expected[1], rtol=1e-4, atol=2.0)  # the same error of a weight, times a resolution
        torch.testing.assert_close(for_table, expected[2].t(), rtol=1e-4, atol=1e-4)


@pytest.mark.requires_gpu
@pytest.mark.parametrize("table_dtype", ["float32", "bfloat16"])
def test_on_a_gpu_a_field_learns(table_dtype: str) -> None:
    grids = {name: getattr(FieldConfig(), name).model_copy(update={"table_dtype": table_dtype}) for name in ("deformation_grid", "canonical_grid")}
    config = FieldConfig().model_copy(update=grids)
    noise = VideoField(config, 4, 64, 64, torch.Generator().manual_seed(0)).cuda()
    optimizer, target = optimizer_of(noise, config), torch.rand(4 * 64 * 64, 3, generator=torch.Generator().manual_seed(4)).cuda()
    at = noise.points(torch.arange(len(target), device="cuda"))
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (noise(at) - target).abs().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2, "noise, the same in no two pixels, must be learnt by heart"
    assert next(iter(noise.render([0]))).shape == (64, 64, 3)
