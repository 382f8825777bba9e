"""The layout's rules, checked on the source: what may import what, and how large things may grow."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [
    {"jobs"},
    {"report"},
    {"search", "scheduler"},
    {"preprocess", "finetune", "joint", "evaluate"},
    {"diffusion", "field", "body"},
    {"tracking"},
    {"data"},
    {"config"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
SOURCES = sorted([*(ROOT / "dpscale").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")])
ALL_PYTHON = sorted([*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])
LIGHT_MODULES = [
    "dpscale.config.schema", "dpscale.config.load", "dpscale.data.types", "dpscale.data.layout", "dpscale.data.checkpoint", "dpscale.data.seeds",
    "dpscale.tracking.tracker", "dpscale.search.space", "dpscale.search.program",
    "dpscale.scheduler.messages", "dpscale.scheduler.state", "dpscale.scheduler.policy", "jobs.cli", "jobs.dry_run", "jobs.pipeline",
]  # fmt: skip
MAX_FILE_LINES, MAX_JOB_LINES, MAX_FUNCTION_LINES, MAX_NESTING = 299, 60, 59, 3


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_name(path)}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _layer(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] == "jobs":
        return "jobs"
    return parts[1] if parts[0] == "dpscale" and len(parts) > 1 and parts[1] in RANK else None


def test_every_package_has_a_layer():
    packages = {path.name for path in (ROOT / "dpscale").iterdir() if (path / "__init__.py").exists()}
    assert packages <= RANK.keys()


def test_import_linter_knows_the_same_layers():
    text = (ROOT / "pyproject.toml").read_text()
    block = re.search(r"^layers = \[(.*?)^\]", text, re.S | re.M)
    assert block is not None
    rows = re.findall(r'"([^"]+)"', block.group(1))
    assert [{part.strip().removeprefix("dpscale.") for part in row.split("|")} for row in rows] == LAYERS


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_imports_go_down(path: Path):
    own = _layer(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for module in _imports(path):
        other = _layer(module)
        if own and other and own != other:
            assert RANK[own] < RANK[other], f"{own} imports {module}"


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_frameworks_stay_at_their_place(path: Path):
    packages = {module.split(".")[0] for module in _imports(path)}
    beside_on_ray = {("scheduler", "fleet.py"), ("scheduler", "gauges.py")}
    if path.name != "on_ray.py" and path.parts[-2:] not in beside_on_ray and "jobs" not in path.relative_to(ROOT).parts:
        assert "ray" not in packages
    if path.name != "deepspeed_engine.py":
        assert "deepspeed" not in packages
    if path.name != "mlflow_tracker.py":
        assert "mlflow" not in packages


def test_light_modules_import_without_torch_and_ray():
    code = "import sys, importlib; [importlib.import_module(n) for n in sys.argv[1:]]; print(sorted({'torch', 'ray', 'mlflow'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code, *LIGHT_MODULES], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("path", ALL_PYTHON, ids=_name)
def test_files_and_functions_stay_small(path: Path):
    text = path.read_text()
    limit = MAX_JOB_LINES if path.parent == ROOT / "jobs" else MAX_FILE_LINES
    assert len(text.splitlines()) <= limit
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno + 1 <= MAX_FUNCTION_LINES, node.name
            assert path not in SOURCES or _depth(node.body) <= MAX_NESTING, f"{node.name} is nested too deeply"


def _depth(body: list[ast.stmt]) -> int:
    """How deeply blocks lie in each other; `elif` counts like `if`."""
    deepest = 0
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        blocks = [getattr(statement, name, []) for name in ("body", "orelse", "finalbody")]
        blocks += [handler.body for handler in getattr(statement, "handlers", [])]
        blocks += [case.body for case in getattr(statement, "cases", [])]
        is_elif = isinstance(statement, ast.If) and len(statement.orelse) == 1 and isinstance(statement.orelse[0], ast.If)
        inner = [_depth(block) + (0 if is_elif and block is statement.orelse else 1) for block in blocks if block]
        deepest = max([deepest, *inner])
    return deepest


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_library_code_does_not_print_or_swallow(path: Path):
    is_script = "__main__" in path.read_text()
    for node in ast.walk(ast.parse(path.read_text())):
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), "bare except"
        if path.is_relative_to(ROOT / "dpscale") and not is_script:
            assert not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"), "print in the library"


def test_no_drawer_for_everything():
    forbidden = {"utils", "util", "common", "helpers", "core", "base", "misc"}
    assert not [path for path in ALL_PYTHON if path.stem in forbidden or path.parent.name in forbidden]


def test_unit_tests_mirror_modules():
    orphans = []
    for test in (ROOT / "tests" / "unit").rglob("test_*.py"):
        package, module = test.parent.relative_to(ROOT / "tests" / "unit"), test.stem.removeprefix("test_")
        homes = [ROOT / "dpscale" / package / f"{module}.py", ROOT / package / f"{module}.py"]
        if package == Path("cluster"):
            continue  # files for machines: there are no modules to mirror
        if not any(home.exists() for home in homes):
            orphans.append(_name(test))
    assert not orphans


@pytest.mark.parametrize("path", sorted([*(ROOT / "jobs" / "configs").glob("*.toml"), *(ROOT / "cluster").rglob("*.toml")]), ids=_name)
def test_every_toml_is_a_config(path: Path):
    from dpscale.config.load import load

    assert load(path)


def test_constraints_pin_exactly():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+", line) for line in lines)
    data = [line.split("==")[0] for line in (ROOT / "requirements-data.txt").read_text().splitlines() if "==" in line]
    assert data
    assert not set(data) & {line.split("==")[0] for line in lines}
