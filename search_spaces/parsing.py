"""Reading a search space from a specification's JSON; the forms are listed in `domains.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from spectune.search_spaces.conditions import When
from spectune.search_spaces.domains import (
    Choice,
    Domain,
    Fixed,
    Integer,
    LogInteger,
    LogUniform,
    OneMinusLogUniform,
    Uniform,
    ZeroOrLogUniform,
)
from spectune.search_spaces.json_values import is_integer, is_number, is_same, json_pointer
from spectune.search_spaces.space import DomainError, Space, SpaceError, nearest_hint

_MOST_OPTIONS = 1000  # without an order no sampler learns from more


def parse_space(document: Mapping[str, Any]) -> Space:
    """Read a search space.

    Args:
        document: For each hyperparameter its domain, such as `{"lr": {"log_uniform": [1e-3, 1e-1]}}`.

    Raises:
        SpaceError: With every problem, each with its JSON pointer relative to the space.
    """
    problems: list[DomainError] = []
    domains: dict[str, Domain] = {}
    for name, written in document.items():
        try:
            domains[name] = _read_domain(json_pointer(name), written)
        except DomainError as problem:
            problems.append(problem)
    if problems:
        raise SpaceError(problems)
    return Space(domains)


def looks_like_domain(written: Any) -> bool:
    """Return whether a value is meant as a domain: a mapping whose first key names a kind of domain."""
    return isinstance(written, Mapping) and next(iter(written), None) in _READERS


def _read_domain(pointer: str, written: Any) -> Domain:
    if not isinstance(written, Mapping):
        raise DomainError(pointer, "a domain is needed, such as {log_uniform: [0.001, 0.1]} or {fixed: 1}", written)
    kinds = [key for key in written if key != "when"]
    for kind in kinds:
        if kind not in _READERS:
            message = f"unknown domain, known are {', '.join(_READERS)}{nearest_hint(str(kind), _READERS)}"
            raise DomainError(pointer + json_pointer(kind), message, kind)
    if len(kinds) != 1:
        raise DomainError(pointer, "exactly one domain is needed", dict(written))
    domain = _READERS[kinds[0]](f"{pointer}/{kinds[0]}", written[kinds[0]])
    return When(domain, _read_conditions(f"{pointer}/when", written["when"])) if "when" in written else domain


def _read_conditions(pointer: str, written: Any) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    if not isinstance(written, Mapping) or not written:
        raise DomainError(pointer, "a mapping from other hyperparameters to their values is needed", written)
    return tuple(
        (other, tuple(values) if isinstance(values, list | tuple) else (values,))
        for other, values in sorted(written.items())
    )


def _read_bounds(
    pointer: str, written: Any, *, above: float | None = None, below: float | None = None, whole: bool = False
) -> tuple[Any, Any]:
    """Read [low, high]: two finite numbers (integers where `whole`) in rising order, within open limits."""
    if not isinstance(written, list | tuple) or len(written) != 2:
        raise DomainError(pointer, "two bounds are needed: [low, high]", written)
    for index, bound in enumerate(written):
        if not (is_integer(bound) if whole else is_number(bound)):
            needed = "an integer is needed" if whole else "a finite number is needed"
            raise DomainError(f"{pointer}/{index}", needed + _text_hint(bound), bound)
    low, high = written
    if not low < high:
        raise DomainError(pointer, "the low bound must be below the high one", written)
    if above is not None and low <= above:
        raise DomainError(f"{pointer}/0", f"the low bound must be above {above:g}", low)
    if below is not None and high >= below:
        raise DomainError(f"{pointer}/1", f"the high bound must be below {below:g}", high)
    return (low, high) if whole else (float(low), float(high))


def _text_hint(bound: Any) -> str:
    """Explain a number that arrived as text: YAML reads 1e-3 as one."""
    try:
        number = float(bound) if isinstance(bound, str) else None
    except ValueError:
        return ""
    return "" if number is None else " (YAML takes 1e-3 for text: write 1.0e-3)"


def _read_choice(pointer: str, written: Any) -> Choice:
    if not isinstance(written, list | tuple) or not written:
        raise DomainError(pointer, "a list of at least one value is needed", written)
    if len(written) > _MOST_OPTIONS:
        raise DomainError(
            pointer, f"at most {_MOST_OPTIONS} values are taken; an integer domain takes more", len(written)
        )
    for index, option in enumerate(written):
        problem = _value_problem(option)
        if any(is_same(option, earlier) for earlier in written[:index]):
            problem = "listed twice"
        if problem:
            raise DomainError(f"{pointer}/{index}", problem, option)
    return Choice(tuple(list(option) if isinstance(option, list | tuple) else option for option in written))


def _read_fixed(pointer: str, written: Any) -> Fixed:
    if problem := _value_problem(written):
        raise DomainError(pointer, problem, written)
    return Fixed(written)


def _value_problem(value: Any) -> str | None:
    if isinstance(value, list | tuple):
        return next((problem for each in value if (problem := _value_problem(each))), None)
    if isinstance(value, float) and not is_number(value):
        return "numbers must be finite"
    if isinstance(value, str | bool | int | float):
        return None
    return "a number, a string, true, false or a list of them is needed"


_READERS: dict[str, Callable[[str, Any], Domain]] = {
    "uniform": lambda pointer, written: Uniform(*_read_bounds(pointer, written)),
    "log_uniform": lambda pointer, written: LogUniform(*_read_bounds(pointer, written, above=0)),
    "one_minus_log_uniform": lambda pointer, written: OneMinusLogUniform(*_read_bounds(pointer, written, below=1)),
    "zero_or_log_uniform": lambda pointer, written: ZeroOrLogUniform(*_read_bounds(pointer, written, above=0)),
    "integer": lambda pointer, written: Integer(*_read_bounds(pointer, written, whole=True)),
    "log_integer": lambda pointer, written: LogInteger(*_read_bounds(pointer, written, above=0, whole=True)),
    "choice": _read_choice,
    "fixed": _read_fixed,
}
