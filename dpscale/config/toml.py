"""A config as TOML that `load` reads back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from dpscale.config.load import resolved
from dpscale.config.schema import Config


def to_toml(config: Config) -> str:
    """Every setting that is not None: TOML has no word for it, and a setting left out is None wherever it may be."""
    return "\n".join(_lines(resolved(config), "")) + "\n"


def _lines(table: Mapping[str, Any], prefix: str) -> Iterator[str]:
    plain = {key: value for key, value in table.items() if value is not None and not isinstance(value, Mapping)}
    yield from (f"{key} = {_value(value)}" for key, value in plain.items())
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from ("", f"[{prefix}{key}]", *_lines(value, f"{prefix}{key}."))


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items() if inner is not None) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON's texts, numbers and truth values are TOML's too
