"""Reads and writes YAML 1.2 with PyYAML, which knows the rules of 1.1 by itself.

The core schema of YAML 1.2 (section 10.3.2), by which a plain scalar means something:

    null       null Null NULL ~ and nothing              bool   true True TRUE false False FALSE
    int        12, -3, 010 (ten), 0o17, 0x1F             float  1.5, 1e-3, .5, .inf, .nan
    text       everything else: 1:30 (90 in YAML 1.1), 1_000, yes, no, on, off, 2026-12-01

What we write is quoted wherever either of the two versions would take text for something else.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final

import yaml

from spectune.service.campaign_file.refusal import TextError, at_line, joined_surrogates

_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_BOOL: Final = re.compile(r"true|True|TRUE|false|False|FALSE")
_NULL: Final = re.compile(r"null|Null|NULL|~|")
_CORE: Final = (("null", _NULL), ("bool", _BOOL), ("int", _INT), ("float", _FLOAT))
_TAG: Final = "tag:yaml.org,2002:"
_BASES: Final = {"0o": 8, "0x": 16}


class _RefusedYamlError(yaml.YAMLError):
    """YAML that could be read but is not taken, or a value that cannot be."""

    def __init__(self, message: str, mark: yaml.Mark | None) -> None:
        super().__init__(at_line(message, None if mark is None else mark.line + 1))


class _Loader(yaml.SafeLoader):
    """The core schema, except that a key may stand once only, and that aliases are refused.

    A campaign needs no aliases, and a few of them can expand beyond any memory.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - the name and the kind are PyYAML's
        None: [(_TAG + name, re.compile(rf"(?:{pattern.pattern})\Z")) for name, pattern in _CORE]
    }
    yaml_constructors: ClassVar[dict[str | None, Any]] = {}  # filled below

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise _RefusedYamlError("aliases are not taken", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except UnicodeDecodeError as error:
            raise _RefusedYamlError("half a character (a lone surrogate)", node.start_mark) from error
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise _RefusedYamlError("a value is not what it says it is", node.start_mark) from error
        except yaml.constructor.ConstructorError as error:
            raise _RefusedYamlError("a value of this kind is not taken", node.start_mark) from error

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge nothing: `<<` is a key like any other in YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
            if name in seen:
                raise _RefusedYamlError(f"the key {name[:100]!r} stands twice", key.start_mark)
            seen |= {name} if name else set()
        return super().construct_mapping(node, deep)

    def construct_text(self, node: yaml.ScalarNode) -> str:
        """Read text, in which a pair of escaped surrogates is one character, as in JSON."""
        return joined_surrogates(str(self.construct_scalar(node)))

    def construct_core(self, node: yaml.ScalarNode) -> Any:
        """Read a number, a truth value or nothing, also where a tag says that it is one."""
        text, name = str(self.construct_scalar(node)), node.tag.removeprefix(_TAG)
        if not dict(_CORE)[name].fullmatch(text) and not (name == "float" and _INT.fullmatch(text)):
            raise ValueError(f"no {name}: got {text!r}")
        match name:
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return int(text, _BASES.get(text[:2], 10))
        return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))


for _kind, _construct in (
    *((name, _Loader.construct_core) for name, _ in _CORE),
    ("str", _Loader.construct_text),
    ("seq", yaml.SafeLoader.construct_yaml_seq),
    ("map", yaml.SafeLoader.construct_yaml_map),
):
    _Loader.yaml_constructors[_TAG + _kind] = _construct
_Loader.yaml_constructors[None] = yaml.SafeLoader.construct_undefined


class _Dumper(yaml.SafeDumper):
    """Knows what YAML 1.2 takes for numbers beside what YAML 1.1 does, so that such text is quoted."""


for _kind, _pattern in _CORE[1:]:
    _Dumper.add_implicit_resolver(_TAG + _kind, re.compile(rf"(?:{_pattern.pattern})\Z"), list("-+.0123456789tTfF"))


def read_yaml(text: str) -> Any:
    """Read a text.

    Raises:
        TextError: It is not YAML, has a key twice, or holds what is not taken.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise TextError(_reason(error)) from error


def write_yaml(document: Any) -> str:
    """Write a document of plain values so that it is read as the same by YAML 1.1 and 1.2."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False)


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
