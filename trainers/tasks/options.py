"""Options of a task as fields of its dataclass: type, default, bounds and a sentence, declared once.

    width: int = option(64, "Size of the residual stream.", at_least=1, at_most=16_384)

`check_options` refuses what lies outside, `schema` writes the same as JSON Schema. A field without `option` has a type
and a default alone.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from spectune.trainers.options import OptionError, unknown

_T = TypeVar("_T")
_BOUNDS: Mapping[str, tuple[str, str]] = {
    "at_least": ("must be at least", "minimum"),
    "at_most": ("must be at most", "maximum"),
    "above": ("must be above", "exclusiveMinimum"),
    "below": ("must be below", "exclusiveMaximum"),
}


LARGEST_BATCH = 2**27
"""Entries of what a task holds or draws at once: 1 GiB in fp64."""


class TaskOptionError(OptionError):
    """An option of a task that cannot be used."""


def option(default: _T, sentence: str, **bounds: float) -> _T:
    """Declare a field: its default, what it means, and any of the bounds at_least, at_most, above and below."""
    assert set(bounds) <= set(_BOUNDS), f"bounds: got {sorted(bounds)}"
    field: _T = dataclasses.field(default=default, metadata={"sentence": sentence, **bounds})
    return field


def declared_options(task_type: type) -> dict[str, Any]:
    """Return the type of every option."""
    hints = get_type_hints(task_type)
    return {field.name: hints[field.name] for field in _fields(task_type)}


def check_options(task: Any) -> None:
    """Refuse a task whose fields hold something else than they declare.

    Raises:
        TaskOptionError: Naming the first such option, and the bound it crosses.
    """
    declared = declared_options(type(task))
    for field in _fields(type(task)):
        value = getattr(task, field.name)
        check_type(field.name, declared[field.name], value)
        message = None if value is None else _crossed(field, value)
        if message is not None:
            raise TaskOptionError(field.name, message, value)


def check_together(name: str, value: Any, count: int, *, at_most: int, words: str) -> None:
    """Refuse options that are too much together, each being within its bounds.

    Raises:
        TaskOptionError: Naming the option that weighs most in the count.
    """
    if count > at_most:
        raise TaskOptionError(name, f"makes {count} {words}, at most {at_most} are allowed", value)


def check_type(name: str, declared: Any, value: Any) -> None:
    """Refuse a value of another type than declared; types other than JSON's plain ones are the task's own business.

    Raises:
        TaskOptionError: Naming the option.
    """
    message = _problem(declared, value)
    if message is not None:
        raise TaskOptionError(name, message, value)


def schema(task_type: type, presets: Collection[str] = ()) -> dict[str, Any]:
    """Write the options of a task as JSON Schema (2020-12): types, bounds, defaults, a sentence each."""
    declared = declared_options(task_type)
    properties = {field.name: _property(field, declared[field.name]) for field in _fields(task_type)}
    if presets:
        properties["preset"] = {
            "enum": sorted(presets),
            "description": "Settings to start from; options given beside it win.",
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": str(getattr(task_type, "name", task_type.__name__)),
        "description": inspect.cleandoc(task_type.__doc__ or "").split("\n\n")[0].replace("\n", " "),
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _fields(task_type: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(task_type)


def _crossed(field: dataclasses.Field[Any], value: Any) -> str | None:
    crosses = {"at_least": value.__lt__, "at_most": value.__gt__, "above": value.__le__, "below": value.__ge__}
    for bound, crosses_it in crosses.items() if isinstance(value, int | float) else ():
        if bound in field.metadata and crosses_it(type(value)(field.metadata[bound])):
            return f"{_BOUNDS[bound][0]} {field.metadata[bound]}"
    return None


def _property(field: dataclasses.Field[Any], declared: Any) -> dict[str, Any]:
    known = {**_json_type(declared), "description": field.metadata.get("sentence", "")}
    if field.default is not dataclasses.MISSING:
        known["default"] = field.default
    return known | {word: field.metadata[bound] for bound, (_, word) in _BOUNDS.items() if bound in field.metadata}


def _json_type(declared: Any) -> dict[str, Any]:
    if get_origin(declared) in (Union, types.UnionType):
        return {"anyOf": [_json_type(member) for member in get_args(declared)]}
    if get_origin(declared) is Literal:
        return {"enum": list(get_args(declared))}
    return {"type": _JSON_TYPES[declared]} if declared in _JSON_TYPES else {}


def _problem(declared: Any, value: Any) -> str | None:
    if get_origin(declared) in (Union, types.UnionType):
        problems = [_problem(member, value) for member in get_args(declared)]
        return None if None in problems else " or ".join(p for p in problems if p)
    if get_origin(declared) is Literal:
        choices = get_args(declared)
        return None if value in choices else unknown("choice", str(value), map(str, choices))
    if declared is float and isinstance(value, float) and not math.isfinite(value):
        return "must be finite"
    words = _WORDS.get(declared)
    if words is None or type(value) is declared or (declared is float and type(value) is int):
        return None
    return f"must be {words}"


_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    types.NoneType: "null",
}
_JSON_TYPES: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string", types.NoneType: "null"}
