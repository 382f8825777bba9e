"""From a TOML file and `--set key=value` to a checked Config, and what two configs differ in."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dpscale.config.explain import explain
from dpscale.config.schema import Config

_HARMLESS = re.compile(
    r"(run\.root|ray\.(?!torch_threads).*|scheduler\..*|tracking\..*|search\..*|drives|performers|videos(\..*)?"
    r"|preprocess\.(num_actors|encode_actors|store)|finetune\.(max_concurrent|max_per_tenant|max_failures|checkpoint_every|nvme_path)"
    r"|finetune\.(gradient_checkpointing|validate_every|cache_gib)|pretrain\.(.*_steps|checkpoint_every_s)|performers\.[^.]+\.(tenant|priority))"
)
"""Keys that change how a run is carried out, not what comes out. (`performers` and `drives` themselves: one more or one fewer;
a changed one differs in a key below.)"""

_DEFAULTS = Config().model_dump()


class ConfigError(ValueError):
    """The settings cannot be used; the message has one line per wrong key, with its value and what is allowed."""


def load(path: Path | None, overrides: Sequence[str] = (), add: Mapping[str, Sequence[Any]] | None = None) -> Config:
    """The config of the file at `path` (none: the defaults), lists lengthened by `add`, covered by `overrides` ("finetune.lr=1e-5").

    A relative path inside the config counts from the working directory. Raises ConfigError."""
    raw = read_file(path) if path else {}
    for key, items in (add or {}).items():
        raw[key] = [*raw.get(key, _DEFAULTS[key]), *items]
    for override in overrides:
        raw = merged(raw, parse_override(override))
    return check(raw)


def check(raw: Mapping[str, Any]) -> Config:
    """The config of a plain dict. Raises ConfigError."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(explain(error)) from error


def read_file(path: Path) -> dict[str, Any]:
    """The table in a TOML file, or in the config.json of a run folder. Raises ConfigError that names the file."""
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such config file") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: is a folder; name a TOML file") from error
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not {'JSON' if path.suffix == '.json' else 'TOML'}: {error}") from error


def parse_override(text: str) -> dict[str, Any]:
    """ "a.b=1" -> {"a": {"b": 1}}. The value is read as TOML; what is not TOML is a string. Raises ConfigError."""
    key, equals, value = text.partition("=")
    names = [name.strip() for name in key.split(".")]
    if not equals or not all(names):
        raise ConfigError(f"--set {text}: write key=value, for example --set finetune.lr=1e-5")
    nested: Any = _value(value.strip())
    for name in reversed(names):
        nested = {name: nested}
    return nested


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` covered by `above`: tables merge key by key; an override may reach into a list by number ("performers.0.path")."""
    result = dict(below)
    for key, value in above.items():
        result[key] = _cover(result.get(key), value)
    return result


def _cover(below: Any, above: Any) -> Any:
    if isinstance(below, Mapping) and isinstance(above, Mapping):
        return merged(below, above)
    if isinstance(below, list) and isinstance(above, Mapping) and all(k.isdigit() and int(k) < len(below) for k in above):
        return [_cover(item, above[str(i)]) if str(i) in above else item for i, item in enumerate(below)]
    return above


def resolved(config: Config) -> dict[str, Any]:
    """Every setting as JSON values: what goes into the run folder."""
    return json.loads(config.model_dump_json())


def read_resolved(path: Path) -> dict[str, Any]:
    """A resolved config that an earlier command wrote. A setting that an older version did not have counts as its default."""
    written = json.loads(path.read_text())
    try:
        return resolved(Config.model_validate(written))
    except ValidationError:
        return written


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose change alters results -> (value before, value after), of two resolved configs.

    Performers and drives are matched by name, and only those in both count: a batch may grow or shrink."""
    old, new = dict(_flat(before)), dict(_flat(after))
    common = _groups(old) & _groups(new)
    keys = [k for k in sorted(old.keys() | new.keys()) if _matters(k, common)]
    return {k: (old.get(k), new.get(k)) for k in keys if old.get(k) != new.get(k)}


def _matters(key: str, common: set[str]) -> bool:
    if _HARMLESS.fullmatch(key):
        return False
    return _group(key) in common if key.startswith(("performers.", "drives.")) else True


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("performers.man.camera", "cam02") and so on; lists of named tables are keyed by name."""
    if isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
        value = {item["name"]: item for item in value}
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def _groups(flat: Mapping[str, Any]) -> set[str]:
    return {_group(key) for key in flat if key.startswith(("performers.", "drives."))}


def _group(key: str) -> str:
    return ".".join(key.split(".")[:2])
