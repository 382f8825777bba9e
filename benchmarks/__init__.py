"""One file a question: `python -m benchmarks.NAME --json FILE` measures two things in one run, prints a table and writes JSON."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path
from typing import Any

from dpscale.data.checkpoint import write_json


def arguments(doc: str, **options: dict[str, Any]) -> argparse.Namespace:
    """--json FILE, --full and a benchmark's own options: name -> what add_argument is given."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the result goes; none: runs/benchmarks/NAME.json")
    parser.add_argument("--full", action="store_true", help="more and longer measurements than ten minutes allow")
    for name, how in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **how)
    return parser.parse_args()


def finish(name: str, path: Path | None, result: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Prints `rows` as a table and writes `result` with machine and commit."""
    show(name, rows)
    path = path or Path("runs/benchmarks") / f"{name}.json"
    write_json(path, {**result, "rows": rows, "machine": machine(), "commit": _commit()})
    print(f"-> {path}")


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Prints `rows` as a table."""
    cells = [[f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:  # a borrowed machine with a GPU has torch and little else
        print("\n".join(["\t".join(rows[0]), *("\t".join(row) for row in cells)]))
        return
    table = Table(*rows[0], title=title)
    for row in cells:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _commit() -> str | None:
    try:
        from jobs.summary import commit
    except ImportError:  # likewise
        return None
    return commit()


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    model = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    return {
        "cpu": model, "cores": os.cpu_count(), "memory_gib": round(memory / 2**30, 1),
        "system": platform.platform(), "python": platform.python_version(),
    }  # fmt: skip


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
