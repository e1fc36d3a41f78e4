"""Collecting problems while a document is read, and reading one section of it."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from spectune.search_spaces.json_values import LARGEST_INTEGER, json_pointer
from spectune.search_spaces.space import nearest_hint
from spectune.service.campaign.specification.sections import Section
from spectune.service.errors import Problem

DEEPEST = 32
_LONGEST_TOLD = 200
_SECRET = re.compile(r"://[^:/@\s]*:[^@/\s]+@|\bspk_[0-9a-f]{1,16}_[0-9a-zA-Z]+")  # an address's password, an API key

_S = TypeVar("_S", bound=Section)


class ProblemList:
    """The problems found so far, one for each place.

    Attributes:
        problems: In the order in which they were found.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, pointer: str, message: str, value: Any = None) -> None:
        """Note a problem, unless one is known at the same place."""
        if all(problem.pointer != pointer for problem in self.problems):
            self.problems.append(Problem(pointer, message, value))

    def is_clear(self, pointer: str) -> bool:
        """Return whether no problem is known below a place."""
        return not any(problem.pointer.startswith(pointer) for problem in self.problems)

    def add_unknown(self, pointer: str, what: str, name: str, known: Collection[str]) -> None:
        """Note a name that is not known, with the nearest that is."""
        hint = nearest_hint(name, tuple(known)) or f"; known: {', '.join(known)}"
        self.add(pointer, f"unknown {what}{hint}", name)

    def read(self, model: type[_S], document: Any, pointer: str) -> _S | None:
        """Read one section; None where it cannot be."""
        try:
            return model.model_validate(document)
        except ValidationError as error:
            for mistake in error.errors(include_url=False):
                place = pointer + json_pointer(*mistake["loc"])
                if mistake["type"] == "extra_forbidden":
                    self.add_unknown(place, "key", str(mistake["loc"][-1]), model.model_fields)
                elif mistake["type"] == "missing":
                    self.add(place, "missing")
                else:
                    hint = _nearest_literal(mistake["input"], mistake.get("ctx", {}).get("expected"))
                    self.add(place, _wording(mistake["type"], mistake["msg"]) + hint, mistake["input"])
            return None


def json_problems(value: Any, pointer: str = "", *, depth: int = 0) -> Iterator[Problem]:
    """Find what no JSON can hold, or no campaign: numbers too large, dates, broken strings, deep nests, secrets."""
    if depth > DEEPEST:
        yield Problem(pointer[:200], f"nested more than {DEEPEST} levels deep")
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if isinstance(key, str) and _is_text(key):
                yield from json_problems(each, pointer + json_pointer(key), depth=depth + 1)
            else:
                yield Problem(pointer, "keys must be strings", _told(key))
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from json_problems(each, pointer + json_pointer(index), depth=depth + 1)
    elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        yield Problem(pointer, "integers must lie within ±2^63", f"one of {value.bit_length()} bits")
    elif isinstance(value, float) and not math.isfinite(value):
        yield Problem(pointer, "numbers must be finite", repr(value))
    elif isinstance(value, str) and not _is_text(value):
        yield Problem(pointer, "not valid text", repr(value))
    elif isinstance(value, str) and _SECRET.search(value):
        yield Problem(pointer, "a password or an API key may not stand in a campaign, which is stored and shown")
    elif value is not None and not isinstance(value, str | bool | int | float):
        yield Problem(pointer, "neither text, number, true, false, null, list nor mapping", _told(value))


def _told(value: Any) -> str:
    """Write a value that no JSON holds, as far as Python can: it refuses to write integers of many digits."""
    try:
        return repr(value)[:_LONGEST_TOLD]
    except (ValueError, RecursionError):
        return f"a value of type {type(value).__name__}"


def _is_text(value: str) -> bool:
    """Return whether a string can be written at all: a lone surrogate cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _wording(kind: str, message: str) -> str:
    if kind in ("model_type", "dict_type"):
        return "a mapping is needed"
    return message[0].lower() + message[1:].replace("nput should be", "nput must be")


def _nearest_literal(given: Any, expected: Any) -> str:
    """Suggest the nearest of the words that pydantic lists; empty where it lists none."""
    words = re.findall(r"'([^']*)'", expected) if isinstance(expected, str) else []
    return nearest_hint(given, words) if isinstance(given, str) else ""
