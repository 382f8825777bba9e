"""Words for what is wrong with a config: key, value, what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dpscale.config.schema import Config

Schema = dict[str, Any]


def explain(error: ValidationError) -> str:
    """One line per wrong key, in the order of the schema."""
    details = error.errors(include_url=False)
    places = {detail["loc"] for detail in details}
    lines = [_line(d) for d in details if not any(len(p) > len(d["loc"]) and p[: len(d["loc"])] == d["loc"] for p in places)]
    return "\n".join(dict.fromkeys(lines))  # a value that may be of two kinds is wrong twice


def allowed(key: Sequence[str | int]) -> str:
    """What the setting at `key` may be, in words: "a number above 0 and at most 1". Empty where nothing is known."""
    schema, _ = _walk(key)
    return _describe(schema) if schema else ""


def known_keys(schema: Schema | None = None, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the config (without those of list items)."""
    for name, child in _resolve(schema or _ROOT).get("properties", {}).items():
        yield prefix + name
        yield from known_keys(child, f"{prefix}{name}.") if "$ref" in child else ()


def _line(detail: ErrorDetails) -> str:
    _, names = _walk(detail["loc"])
    key = ".".join(names)
    value = _short(detail["input"])
    if detail["type"] == "extra_forbidden":
        return f"{key} = {value}: there is no such setting{_did_you_mean(detail['loc'])}"
    if detail["type"] == "missing":
        return f"{key}: is missing; give it {_describe(_walk(detail['loc'])[0] or {}) or 'a value'}"
    if detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    if detail["type"].startswith("union_tag"):
        kinds = ", ".join((_walk(detail["loc"])[0] or {}).get("discriminator", {}).get("mapping", {}))
        context = detail.get("ctx", {})
        given = f" = {context['tag']!r}" if "tag" in context else ""
        return f"{key}.kind{given}: must be one of {kinds}"
    return f"{key} = {value}: must be {allowed(detail['loc']) or detail['msg']}"


def _did_you_mean(loc: Sequence[str | int]) -> str:
    parent, names = _walk(loc[:-1])
    siblings = list((parent or {}).get("properties", {}))
    wrong = str(loc[-1])
    close = difflib.get_close_matches(wrong, siblings, n=1)
    if close:
        return f"; did you mean {'.'.join([*names, close[0]])}?"
    elsewhere = [key for key in known_keys() if key.split(".")[-1] == wrong]
    if elsewhere:
        return f"; did you mean {' or '.join(elsewhere)}?"
    return f"; known here: {', '.join(siblings)}" if siblings else ""


def _walk(key: Sequence[str | int]) -> tuple[Schema | None, list[str]]:
    """The JSON schema at a pydantic location, and the location as a user writes it (without the tags of unions)."""
    schema: Schema | None = _resolve(_ROOT)
    names: list[str] = []
    for part in key:
        if schema and part in schema.get("discriminator", {}).get("mapping", {}):
            schema = _resolve({"$ref": schema["discriminator"]["mapping"][part]})
            continue
        if schema and all("type" in option and "properties" not in option for option in schema.get("anyOf", [{}])):
            continue  # one of the kinds that a plain value may have
        names.append(str(part))
        schema = _child(schema, part) if schema else None
    return schema, names


def _child(schema: Schema, part: str | int) -> Schema | None:
    for option in [schema, *schema.get("anyOf", [])]:
        option = _resolve(option)
        found = option.get("items") if isinstance(part, int) else option.get("properties", {}).get(part)
        if found:
            return _resolve(found)
    return None


def _resolve(schema: Schema) -> Schema:
    reference = schema.get("$ref")
    return _ROOT["$defs"][reference.split("/")[-1]] if reference else schema


def _describe(schema: Schema) -> str:
    """ "a number above 0 and at most 1", "one of temporal, all", ..."""
    if "anyOf" in schema:
        words = [_describe(_resolve(option)) for option in schema["anyOf"] if option.get("type") != "null"]
        return " or ".join(words) + (" (or left out)" if {"type": "null"} in schema["anyOf"] else "")
    if "discriminator" in schema:
        return f"a table whose kind is one of {', '.join(schema['discriminator']['mapping'])}"
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return repr(schema["const"])
    if schema.get("type") == "array":
        return f"a list{_at_least(schema)}, each {_describe(_resolve(schema.get('items', {})))}"
    if "pattern" in schema:
        return f"a text of the form {schema['pattern']}" + (f" ({schema['description']})" if "description" in schema else "")
    kind = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "a text", "object": "a table"}
    return (kind.get(schema.get("type", ""), "") + _bounds(schema)).strip()


def _at_least(schema: Schema) -> str:
    return f" of at least {schema['minItems']}" if schema.get("minItems") else ""


def _bounds(schema: Schema) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    found = {word: f"{schema[key]:,}".replace(",", "_") for key, word in words.items() if key in schema}
    if {"at least", "at most"} <= found.keys():
        text = f"from {found['at least']} to {found['at most']}"
    else:
        text = " and ".join(f"{word} {bound}" for word, bound in found.items())
    return f" {text}" + (f", a multiple of {schema['multipleOf']}" if "multipleOf" in schema else "")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


_ROOT: Schema = Config.model_json_schema()
