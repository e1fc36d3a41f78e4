"""Which parameters of a model a spectral optimizer should train, and which AdamW.

The shape alone does not tell: an embedding is a table of vectors, not a map between spaces, yet it is two-dimensional.
So modules are looked at, and where they stand (`output_heads`); tied weights are judged together, by the storage that
they share. A matrix of a module that is not known goes to AdamW, as all does in doubt; the report says so.
A convolution can be flattened and a fused projection split, so that each map in it has a polar factor of its own.

    parts = split(model, flatten=True, split_sizes={"*.qkv.weight": (512, 128, 128)})
    optimizer = Muon(parts.groups() + [{"params": parts.rest, "algorithm": "adamw"}])
    print(parts.report())
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from math import prod
from typing import Any, Final, Literal

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import ParametrizationList

from spectune.optimizers.parameters.matrix_views import MAX_KERNEL, check_view
from spectune.optimizers.parameters.output_heads import CONVOLUTIONS, LAYERS, RECURRENT, TABLES, is_linear, output_heads

Group = Literal["matrices", "adamw"]

EMBEDDING_NAME: Final = re.compile(r"embed|wte|wpe|^pos(itions?)?$", re.IGNORECASE)
KNOWN: Final = (*CONVOLUTIONS, *RECURRENT, nn.MultiheadAttention)
ROUTER_NAME: Final = re.compile(r"(^|_)router(_|\d|$)", re.IGNORECASE)


@dataclass(frozen=True)
class ParameterAssignment:
    """Where one parameter goes, why, and as which matrices: options of a group, as `matrix_views` describes them."""

    name: str
    shape: tuple[int, ...]
    group: Group
    reason: str
    view: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ParameterSplit:
    """Every parameter of a model, each in one of two groups, as pairs of name and parameter in the model's order."""

    matrices: tuple[tuple[str, nn.Parameter], ...]
    rest: tuple[tuple[str, nn.Parameter], ...]
    assignments: tuple[ParameterAssignment, ...]

    def groups(self) -> list[dict[str, Any]]:
        """Return the matrices as parameter groups, one for each way of seeing a parameter, in the model's order."""
        views = {entry.name: entry.view for entry in self.assignments}
        groups: dict[str, dict[str, Any]] = {}
        for name, parameter in self.matrices:
            group = groups.setdefault(repr(views[name]), {"params": [], **views[name]})
            group["params"].append((name, parameter))
        return list(groups.values())

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
    """One name of a parameter, and the module that uses it, also if a parametrization holds it."""

    name: str
    parameter: nn.Parameter
    owner: nn.Module


@dataclass(frozen=True)
class _Wishes:
    """What was asked for, each but `flatten` by patterns of names."""

    matrices: Sequence[str]
    adamw: Sequence[str]
    flatten: bool
    split_sizes: Mapping[str, Sequence[int]]
    num_heads: Mapping[str, int]


def split(
    model: nn.Module,
    *,
    matrices: Sequence[str] = (),
    adamw: Sequence[str] = (),
    flatten: bool = False,
    split_sizes: Mapping[str, Sequence[int]] | None = None,
    num_heads: Mapping[str, int] | None = None,
) -> ParameterSplit:
    """Assign every parameter of a model to the matrices or to AdamW.

    To AdamW go parameters that are not two-dimensional or have a dimension of size one, embeddings, the output heads
    (`output_heads`), norms, routers, matrices that are held by a module of no known kind, and whatever shares storage
    with one of these. Known are linear layers, convolutions, attention and recurrent layers; a model that has none of
    them and no embedding is a problem in bare matrices, which then are what is trained.

    Args:
        model: Any module; nothing is computed or changed.
        matrices: Patterns of names, as `blocks.*.weight`, that are matrices whatever the rules say; with more
            dimensions, and not a convolution's, a stack of them, as experts [experts, out, in] are.
        adamw: Patterns of names that go to AdamW whatever the rules say.
        flatten: Whether a convolution is the matrix [out, in · kh · kw], a grouped one one for each group. A depthwise
            one, which has a vector for each channel, and a transposed one still go to AdamW.
        split_sizes: Rows of each block of a fused projection, by pattern, as {"*.qkv.weight": (512, 128, 128)}.
        num_heads: The number of equal blocks of rows instead, as {"*.in_proj_weight": 3}.

    Returns:
        Both groups, with the reasons. A parameter with several names is listed under its first one.

    Raises:
        ValueError: A pattern matches no parameter; patterns of both kinds match one; one asked to be a matrix is not
            two-dimensional; one asked to be split goes to AdamW, or its rows do not allow it.
    """
    places = list(_places(model))
    wishes = _Wishes(matrices, adamw, flatten, split_sizes or {}, num_heads or {})
    _refuse_idle_patterns([*matrices, *adamw, *wishes.split_sizes, *wishes.num_heads], places)
    heads, is_raw = output_heads(model), _is_raw(model)
    by_storage: defaultdict[tuple[int, int], list[_Place]] = defaultdict(list)
    for place in places:
        by_storage[_storage(place.parameter)].append(place)
    chosen = {key: _assign(tied, heads, is_raw, wishes) for key, tied in by_storage.items()}
    listed = {id(place.parameter): place for place in reversed(places)}
    rows = [(listed[id(parameter)], chosen[_storage(parameter)]) for parameter in model.parameters()]
    return ParameterSplit(
        matrices=tuple((place.name, place.parameter) for place, entry in rows if entry.group == "matrices"),
        rest=tuple((place.name, place.parameter) for place, entry in rows if entry.group == "adamw"),
        assignments=tuple(replace(entry, name=place.name, shape=tuple(place.parameter.shape)) for place, entry in rows),
    )


def is_vector(parameter: Tensor) -> bool:
    """Return whether a parameter is a number or a vector, dimensions of size one aside: a gain, a bias, a gate."""
    return sum(size > 1 for size in parameter.shape) <= 1


def _places(model: nn.Module) -> Iterator[_Place]:
    """Yield every name of every parameter: a tied one is met in each of its modules."""
    for prefix, module in model.named_modules():
        owner = module
        if isinstance(module, ParametrizationList):  # <owner>.parametrizations.<weight>
            owner = model.get_submodule(".".join(prefix.split(".")[:-2]))
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            yield _Place(f"{prefix}.{name}" if prefix else name, parameter, owner)


def _storage(parameter: Tensor) -> tuple[int, int]:
    """Identify what a parameter lies in; unlike an address this also tells meta tensors apart."""
    return parameter.untyped_storage()._cdata, int(parameter.storage_offset())


def _assign(tied: list[_Place], heads: Mapping[int, str], is_raw: bool, wishes: _Wishes) -> ParameterAssignment:
    """Judge all places of one storage together, by its strongest reason."""
    first = tied[0]
    view, blocks = _view(tied, wishes)
    group, reason = _asked(tied, wishes) or _judged(tied, heads, is_raw, view)
    shape = tuple(first.parameter.shape)
    if group == "adamw":
        if blocks:
            raise ValueError(f"{first.name} is asked to be split but goes to AdamW ({reason}): got {blocks!r}")
        return ParameterAssignment(first.name, shape, group, reason)
    check_view(first.name, shape, view)
    return ParameterAssignment(first.name, shape, group, reason + _told(view, shape), view)


def _view(tied: list[_Place], wishes: _Wishes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options that make matrices of a parameter, and those of them that a pattern gave to split it."""
    names = [place.name for place in tied]
    blocks: dict[str, Any] = {}
    for pattern, sizes in wishes.split_sizes.items():
        if any(fnmatchcase(name, pattern) for name in names):
            blocks["split_sizes"] = list(sizes) if isinstance(sizes, Sequence) else sizes
    for pattern, number in wishes.num_heads.items():
        if any(fnmatchcase(name, pattern) for name in names):
            blocks["num_heads"] = number
    view: dict[str, Any] = {}
    owner, shape = tied[0].owner, tied[0].parameter.shape
    if len(shape) > 2 and not _is_convolution(tied):
        view = {"stacked": True}  # a stack of experts: one matrix each
    elif wishes.flatten and len(shape) > 2:
        view = {"flatten": True} if len(shape) > 3 or shape[-1] <= MAX_KERNEL else {"flatten": True, "stacked": False}
    if "flatten" in view and not blocks and isinstance(owner, CONVOLUTIONS) and owner.groups > 1:
        view["num_heads"] = owner.groups
    return {**view, **blocks}, blocks


def _is_convolution(tied: list[_Place]) -> bool:
    return isinstance(tied[0].owner, _ConvNd)


def _told(view: Mapping[str, Any], shape: tuple[int, ...]) -> str:
    """Say for the report as which matrices a parameter is seen."""
    flattened = f", flattened to {shape[0]}×{prod(shape[1:])}" if len(shape) > 2 else ""
    if view.get("stacked"):
        flattened, shape = f", {prod(shape[:-2])} matrices of {shape[-2]}×{shape[-1]}", shape[-2:]
    if "split_sizes" in view:
        return f"{flattened}, in blocks of {', '.join(map(str, view['split_sizes']))} rows"
    if "num_heads" in view:
        return f"{flattened}, in {view['num_heads']} blocks of {shape[0] // view['num_heads']} rows"
    return flattened


def _asked(tied: list[_Place], wishes: _Wishes) -> tuple[Group, str] | None:
    as_matrix = [pattern for pattern in wishes.matrices for place in tied if fnmatchcase(place.name, pattern)]
    as_rest = [pattern for pattern in wishes.adamw for place in tied if fnmatchcase(place.name, pattern)]
    name, shape = tied[0].name, tuple(tied[0].parameter.shape)
    if as_matrix and as_rest:
        raise ValueError(f"{name} is asked into both groups: got {as_matrix[0]!r} and {as_rest[0]!r}")
    may_have_more = wishes.flatten or not _is_convolution(tied)
    if as_matrix and len(shape) != 2 and not (may_have_more and len(shape) > 2):
        raise ValueError(f"{name} is asked to be a matrix: got shape {shape}")
    if as_matrix:
        return "matrices", f"asked by {as_matrix[0]!r}"
    return ("adamw", f"asked by {as_rest[0]!r}") if as_rest else None


def _judged(tied: list[_Place], heads: Mapping[int, str], is_raw: bool, view: Mapping[str, Any]) -> tuple[Group, str]:
    for place in tied:
        reason = _reason_for_adamw(place, heads, is_raw, view)
        if reason is not None:
            others = [other.name for other in tied if other is not place]
            return "adamw", reason + (f", tied to {', '.join(others)}" if others else "")
    return "matrices", "matrix" if tied[0].parameter.ndim == 2 else "convolution"


def _reason_for_adamw(place: _Place, heads: Mapping[int, str], is_raw: bool, view: Mapping[str, Any]) -> str | None:
    shape, owner = place.parameter.shape, place.owner
    is_flattened = "flatten" in view and isinstance(owner, CONVOLUTIONS)
    if len(shape) != 2 and not is_flattened:
        return f"{len(shape)}-dimensional"
    if isinstance(owner, TABLES):
        return "embedding"
    if id(owner) in heads:
        return heads[id(owner)]
    if is_flattened and shape[0] == view.get("num_heads"):
        return "a vector for each channel, depthwise"
    if 1 in (shape[0], prod(shape[1:])):
        return "a vector, with a dimension of size one"
    return _reason_by_use(place, is_raw)


def _reason_by_use(place: _Place, is_raw: bool) -> str | None:
    """Return why a matrix is no map between hidden spaces, as far as its module and its name tell."""
    parts = place.name.split(".")[-2:]
    if any(ROUTER_NAME.search(part) for part in parts):
        return "router by its name"
    if is_linear(place.owner) or isinstance(place.owner, KNOWN):
        return None
    if any(EMBEDDING_NAME.search(part) for part in parts):
        return "embedding by its name"
    if "norm" in type(place.owner).__name__.lower():
        return "norm"
    kind = type(place.owner).__name__
    return None if is_raw else f"of a module whose use is not known, {kind}; name it in `matrices` if it is a map"


def _is_raw(model: nn.Module) -> bool:
    """Return whether a model is made of bare matrices alone, as a factorization, so that these are what it trains."""
    return not any(isinstance(module, LAYERS) or is_linear(module) for module in model.modules())


def _refuse_idle_patterns(patterns: Sequence[str], places: Sequence[_Place]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(place.name, pattern) for place in places):
            raise ValueError(f"no parameter has a name like the pattern: got {pattern!r}")


def _size(group: Sequence[tuple[str, nn.Parameter]]) -> str:
    return f"{len(group)} parameters, {sum(parameter.numel() for _, parameter in group):,} numbers"
