"""Reads JSON (RFC 8259) strictly: a key stands once, numbers are finite, and every character is whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from spectune.service.campaign_file.refusal import TextError, at_line, joined_surrogates

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:]|-?(?:NaN|Infinity)', re.DOTALL)


class _TwiceError(ValueError):
    """A key that an object holds twice."""


def read_json(text: str) -> Any:
    """Read a text.

    Raises:
        TextError: It is not JSON, holds NaN or Infinity, a key twice, or half a character.
    """
    try:
        document = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
        for token, _ in _tokens(text, '"'):
            joined_surrogates(json.loads(token))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise TextError(
            f"{error.msg[:1].lower()}{error.msg[1:]}, {place}; a text that begins with '{{' is JSON"
        ) from error
    except _TwiceError as error:
        name, line = _second_key(text)
        raise TextError(at_line(f"the key {name[:100]!r} stands twice", line)) from error
    except _NotFiniteError as error:
        line = next((line for token, line in _tokens(text, "-NI")), None)
        raise TextError(at_line(f"JSON has no {error}", line)) from error
    except UnicodeDecodeError as error:
        raise TextError(at_line("half a character (a lone surrogate)", _line_of_surrogate(text))) from error
    except RecursionError as error:
        raise TextError("it is nested too deeply") from error
    except ValueError as error:
        raise TextError("a number has too many digits") from error
    return document


class _NotFiniteError(ValueError):
    """NaN or an infinity."""


def _refuse_constant(name: str) -> NoReturn:
    raise _NotFiniteError(name)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _TwiceError
    return found


def _tokens(text: str, first: str) -> Iterator[tuple[str, int]]:
    """Find the tokens of well-formed JSON that begin with one of some characters, each with its line."""
    for match in _TOKEN.finditer(text):
        if match[0][0] in first:
            yield match[0], text.count("\n", 0, match.start()) + 1


def _second_key(text: str) -> tuple[str, int | None]:
    """Find the first key that its object holds already."""
    open_objects: list[set[str]] = []
    last = ("", 0)
    for token, line in _tokens(text, '"{}[]:'):
        match token[0]:
            case "{" | "[":
                open_objects.append(set())
            case "}" | "]":
                open_objects.pop()
            case ":":
                name = json.loads(last[0])
                if name in open_objects[-1]:
                    return name, last[1]
                open_objects[-1].add(name)
            case _:
                last = token, line
    return "", None


def _line_of_surrogate(text: str) -> int | None:
    for token, line in _tokens(text, '"'):
        try:
            joined_surrogates(json.loads(token))
        except UnicodeDecodeError:
            return line
    return None
