"""Reads a campaign file: YAML (so JSON too), with duplicate keys refused instead of silently dropped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from service.errors import Problem, SpecificationError


class _StrictLoader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, except that a key may stand once only, `1e-3` is a number, and aliases are refused.

    A campaign needs no aliases, and a few of them can expand beyond any memory.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, f"aliases are not taken, line {line}", None)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(self.construct_object(key, deep=True))
            if name in seen:
                place = f"line {key.start_mark.line + 1}"
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} stands twice, {place}", None)
            seen.add(name)
        return super().construct_mapping(node, deep)


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
        return yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise SpecificationError([Problem("", f"the campaign file is not YAML ({reason})", str(path))]) from error
