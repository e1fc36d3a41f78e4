"""Which parameters of a model a spectral optimizer should train, and which AdamW.

The shape alone does not tell: an embedding is a table of vectors, not a map between spaces, yet it is two-dimensional.
So modules are looked at, then names; tied weights are judged together, by the storage that they share. In doubt AdamW.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Literal

from torch import Tensor, nn

Group = Literal["matrices", "adamw"]

EMBEDDING_NAME: Final = re.compile(r"embed|wte|wpe|^pos(itions?)?$", re.IGNORECASE)
HEAD_NAME: Final = re.compile(r"head$|^classifier$|^unembed|^output$", re.IGNORECASE)
ROUTER_NAME: Final = re.compile(r"router", re.IGNORECASE)


@dataclass(frozen=True)
class Assignment:
    """Where one parameter goes, and why."""

    name: str
    shape: tuple[int, ...]
    group: Group
    reason: str


@dataclass(frozen=True)
class ParameterSplit:
    """Every parameter of a model, each in one of two groups, as pairs of name and parameter in the model's order."""

    matrices: tuple[tuple[str, nn.Parameter], ...]
    rest: tuple[tuple[str, nn.Parameter], ...]
    assignments: tuple[Assignment, ...]

    def report(self) -> str:
        """Write a line for each parameter (name, shape, group, reason) and one for the sums."""
        rows = [(entry.name, "×".join(map(str, entry.shape)), entry.group, entry.reason) for entry in self.assignments]
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
        ]
        return "\n".join([*lines, f"matrices: {_size(self.matrices)}; adamw: {_size(self.rest)}"])


@dataclass(frozen=True)
class _Place:
    """One name of a parameter, and the module that owns it."""

    name: str
    parameter: nn.Parameter
    owner: nn.Module


def split(model: nn.Module, *, matrices: Sequence[str] = (), adamw: Sequence[str] = ()) -> ParameterSplit:
    """Assign every parameter of a model to the matrices or to AdamW.

    To AdamW go parameters that are not two-dimensional or have a dimension of size one, embeddings, the output head
    (linear layers named so, else the last one beside others or an embedding), norms, routers, and whatever shares
    storage with one of these.

    Args:
        model: Any module; nothing is computed or changed.
        matrices: Patterns of names, as `blocks.*.weight`, that are matrices whatever the rules say.
        adamw: Patterns of names that go to AdamW whatever the rules say.

    Returns:
        Both groups, with the reasons. A parameter with several names is listed under its first one.

    Raises:
        ValueError: A pattern matches no parameter; patterns of both kinds match one; one asked to be a matrix is not
            two-dimensional.
    """
    places = list(_places(model))
    _refuse_idle_patterns([*matrices, *adamw], places)
    heads = _heads(model)
    by_storage: defaultdict[tuple[int, int], list[_Place]] = defaultdict(list)
    for place in places:
        by_storage[_storage(place.parameter)].append(place)
    chosen = {key: _assign(tied, heads, matrices, adamw) for key, tied in by_storage.items()}
    listed = {id(place.parameter): place for place in reversed(places)}
    rows = [(listed[id(parameter)], chosen[_storage(parameter)]) for parameter in model.parameters()]
    return ParameterSplit(
        matrices=tuple((place.name, place.parameter) for place, (group, _) in rows if group == "matrices"),
        rest=tuple((place.name, place.parameter) for place, (group, _) in rows if group == "adamw"),
        assignments=tuple(
            Assignment(place.name, tuple(place.parameter.shape), group, reason) for place, (group, reason) in rows
        ),
    )


def _places(model: nn.Module) -> Iterator[_Place]:
    """Give every name of every parameter: a tied one is met in each of its modules."""
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            yield _Place(f"{prefix}.{name}" if prefix else name, parameter, module)


def _storage(parameter: Tensor) -> tuple[int, int]:
    """Identify what a parameter lies in; unlike an address this also tells meta tensors apart."""
    return parameter.untyped_storage()._cdata, int(parameter.storage_offset())


def _heads(model: nn.Module) -> set[int]:
    """Find the output heads: the linear layers named so, else the last one if it is not the only layer with a table."""
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    named = {id(module) for name, module in linear if HEAD_NAME.search(name.rpartition(".")[2])}
    has_embedding = any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in model.modules())
    if named or not linear or (len(linear) == 1 and not has_embedding):
        return named
    return {id(linear[-1][1])}


def _assign(tied: list[_Place], heads: set[int], matrices: Sequence[str], adamw: Sequence[str]) -> tuple[Group, str]:
    """Judge all places of one storage together, by its strongest reason."""
    asked = _asked(tied, matrices, adamw)
    if asked is not None:
        return asked
    for place in tied:
        reason = _reason_for_adamw(place, heads)
        if reason is not None:
            others = [other.name for other in tied if other is not place]
            return "adamw", reason + (f", tied to {', '.join(others)}" if others else "")
    return "matrices", "matrix"


def _asked(tied: list[_Place], matrices: Sequence[str], adamw: Sequence[str]) -> tuple[Group, str] | None:
    as_matrix = [pattern for pattern in matrices for place in tied if fnmatchcase(place.name, pattern)]
    as_rest = [pattern for pattern in adamw for place in tied if fnmatchcase(place.name, pattern)]
    name, shape = tied[0].name, tuple(tied[0].parameter.shape)
    if as_matrix and as_rest:
        raise ValueError(f"{name} is asked into both groups: got {as_matrix[0]!r} and {as_rest[0]!r}")
    if as_matrix and len(shape) != 2:
        raise ValueError(f"{name} is asked to be a matrix: got shape {shape}")
    if as_matrix:
        return "matrices", f"asked by {as_matrix[0]!r}"
    return ("adamw", f"asked by {as_rest[0]!r}") if as_rest else None


def _reason_for_adamw(place: _Place, heads: set[int]) -> str | None:
    shape, owner = place.parameter.shape, place.owner
    if len(shape) != 2:
        return f"{len(shape)}-dimensional"
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag):
        return "embedding"
    if id(owner) in heads:
        return "output head"
    if "norm" in type(owner).__name__.lower():
        return "norm"
    if 1 in shape:
        return "a vector, with a dimension of size one"
    return _reason_by_name(place.name)


def _reason_by_name(name: str) -> str | None:
    parts = name.split(".")
    for pattern, reason in ((EMBEDDING_NAME, "embedding"), (HEAD_NAME, "output head"), (ROUTER_NAME, "router")):
        if any(pattern.search(part) for part in parts[-2:]):
            return f"{reason} by its name"
    return None


def _refuse_idle_patterns(patterns: Sequence[str], places: Sequence[_Place]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(place.name, pattern) for place in places):
            raise ValueError(f"no parameter has a name like the pattern: got {pattern!r}")


def _size(group: Sequence[tuple[str, nn.Parameter]]) -> str:
    return f"{len(group)} parameters, {sum(parameter.numel() for _, parameter in group):,} numbers"
