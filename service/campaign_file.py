"""Reads a campaign file: YAML (so JSON too), with duplicate keys refused instead of silently dropped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from service.errors import Problem, SpecificationError


class _RefusedYamlError(yaml.YAMLError):
    """YAML that could be read but is not taken, or a value that cannot be."""

    def __init__(self, message: str, mark: yaml.Mark | None) -> None:
        super().__init__(message + ("" if mark is None else f", line {mark.line + 1}"))


class _StrictLoader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, except that a key may stand once only, `1e-3` is a number, and aliases are refused.

    A campaign needs no aliases, and a few of them can expand beyond any memory.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise _RefusedYamlError("aliases are not taken", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise _RefusedYamlError("a value is not what it says it is", node.start_mark) from error
        except yaml.constructor.ConstructorError as error:
            raise _RefusedYamlError("a value of this kind is not taken", node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
            if name in seen:
                raise _RefusedYamlError(f"the key {name[:100]!r} stands twice", key.start_mark)
            seen |= {name} if name else set()
        return super().construct_mapping(node, deep)


_NOT_YAML = "the campaign file is not YAML"

_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_document(path: Path) -> Any:
    """Read a campaign file.

    Raises:
        SpecificationError: The file cannot be read, is not YAML, or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SpecificationError([Problem("", f"the campaign file cannot be read ({reason})", str(path))]) from error
    try:
        return _parsed(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise SpecificationError([Problem("", f"{_NOT_YAML} ({_reason(error)})", str(path))]) from error


def parse_document(text: str) -> Any:
    """Read the text of a campaign file.

    Raises:
        SpecificationError: It is not YAML, or has a key twice; the text is not repeated.
    """
    try:
        return _parsed(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise SpecificationError([Problem("", f"{_NOT_YAML} ({_reason(error)})")]) from error


def _parsed(text: str) -> Any:
    return yaml.load(text, Loader=_StrictLoader)


def _reason(error: yaml.YAMLError | RecursionError) -> str:
    """Say in our words why a text was refused, and where."""
    if isinstance(error, _RefusedYamlError):
        return str(error)
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, yaml.reader.ReaderError):
        return f"it holds a character that no text has, at position {error.position}"
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = "" if mark is None else f" beyond line {mark.line + 1}, column {mark.column + 1}"
    return f"it makes no sense{place}: is a quote, a bracket or a blank after a colon missing, or a tab in the way?"
