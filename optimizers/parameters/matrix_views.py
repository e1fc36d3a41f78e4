"""How a parameter becomes matrices: as it is, flattened to two dimensions, one by one, or in blocks of rows.

    stacked        [experts, out, in] -> as many [out, in], each with a polar factor of its own
    flatten        [out, in, kh, kw] -> [out, in · kh · kw], a convolution as a map from patches to channels
    split_sizes    a fused [q + k + v, in] -> [q, in], [k, in], [v, in], each with a polar factor of its own
    num_heads      the same in that many equal blocks

These are options of a parameter group. Blocks are views: what is written to them is written to the parameter, and the
state has the parameter's shape, so a checkpoint does not know of them. A rule sees ordinary matrices.

    Muon([{"params": [convolution.weight], "flatten": True}, {"params": [attention.in_proj_weight], "num_heads": 3}])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from itertools import product
from typing import Any, Final

import torch
from torch import Tensor

from spectune.optimizers.parameters.parameter_checks import is_distributed, local

VIEW_OPTIONS: Final = ("flatten", "stacked", "split_sizes", "num_heads")
MAX_KERNEL: Final = 7
"""Length up to which the last of three dimensions is taken for a convolution's; longer ones must be said to be so."""


def matrices_of(group: Mapping[str, Any], tensor: Tensor, *, like: Tensor | None = None) -> list[Tensor]:
    """Return the matrices that a parameter of the group stands for, as views.

    Args:
        group: Its options, those of `VIEW_OPTIONS`, are read if there are any.
        tensor: The parameter, its gradient, or a state of its shape.
        like: The parameter, whose layout in memory says in which order columns are flattened; `tensor` by default. A
            channels-last convolution has its columns in another order, which no polar factor and no percentile sees.
            A gradient in another layout is copied.

    Returns:
        At least one tensor of two dimensions.
    """
    tensor = local(tensor)
    rows, matrices = tensor.shape[_row(tensor.shape, group)], [tensor]
    if group.get("stacked") and tensor.ndim > 2:
        matrices = [tensor[place] for place in product(*map(range, tensor.shape[:-2]))]
    elif group.get("flatten") and tensor.ndim > 2:
        matrices = [tensor.permute(_by_stride(tensor if like is None else local(like))).flatten(start_dim=1)]
    sizes = group.get("split_sizes")
    if group.get("num_heads"):
        sizes = [rows // group["num_heads"]] * group["num_heads"]
    return [part for matrix in matrices for part in torch.split(matrix, list(sizes))] if sizes else matrices


def _row(shape: Sequence[int], group: Mapping[str, Any]) -> int:
    """Return which dimension of a parameter the rows of its matrices are."""
    return len(shape) - 2 if group.get("stacked") else 0


def check_view(name: str, shape: tuple[int, ...], group: Mapping[str, Any]) -> None:
    """Refuse a parameter that the group's options do not make matrices of.

    Raises:
        ValueError: With the parameter's name, and its shape or the option's value.
    """
    flatten, stacked, sizes, heads = (group.get(option) for option in VIEW_OPTIONS)
    for option, value in (("flatten", flatten), ("stacked", stacked)):
        if value not in (None, True, False):
            raise ValueError(f"{option} must be true or false: got {value!r}")
    if len(shape) != 2 and not ((flatten or stacked) and len(shape) > 2):
        raise ValueError(f'{name} is no matrix, which only groups with algorithm="adamw" take: got shape {shape}')
    if flatten and stacked and len(shape) > 2:
        raise ValueError(f"give either flatten or stacked: got both for {name} of shape {shape}")
    if flatten and stacked is None and len(shape) == 3 and shape[-1] > MAX_KERNEL:
        choice = "stacked=True takes each matrix for itself, flatten=True with stacked=False makes it one"
        raise ValueError(f"{name} may be a stack of matrices or a long kernel, {choice}: got shape {shape}")
    rows = shape[_row(shape, group)]
    if sizes is not None and heads is not None:
        raise ValueError(f"give either split_sizes or num_heads: got {sizes!r} and {heads!r}")
    if sizes is not None and not _are_sizes(sizes, rows):
        raise ValueError(f"split_sizes of {name} are whole numbers above 0 that add up to {rows}: got {sizes!r}")
    if heads is not None and not (_is_count(heads) and rows % heads == 0):
        raise ValueError(f"num_heads of {name} is a whole number that divides its {rows} rows: got {heads!r}")


def as_matrices(
    group: dict[str, Any], states: MutableMapping[Tensor, Any], first_state: Callable[[Tensor], dict[str, Tensor]]
) -> tuple[dict[str, Any], MutableMapping[Tensor, Any]]:
    """Return a group whose parameters are the matrices that those of `group` stand for, and the states of these.

    Args:
        group: Of matrices; without an option of this module it is given back as it is, and so are the states.
        states: Of the group's parameters; filled for those that take their first step.
        first_state: Returns the state of a matrix before its first step.

    Returns:
        A group of views with gradients, those without left out, and views of their states: written to in place.
    """
    if not any(group.get(option) for option in VIEW_OPTIONS) and not any(map(is_distributed, group["params"])):
        return group, states
    matrices: list[Tensor] = []
    own: dict[Tensor, Any] = {}
    for parameter in group["params"]:
        if parameter.grad is None:
            continue
        state = states[parameter]
        if not state:
            state.update(_first_state(group, parameter, first_state))
        views = matrices_of(group, parameter.detach())
        gradients = matrices_of(group, parameter.grad, like=parameter)
        for place, (view, gradient) in enumerate(zip(views, gradients, strict=True)):
            view.grad = gradient
            own[view] = {name: _parts(group, parameter, state, name)[place] for name in state}
        matrices += views
    return {**group, "params": matrices}, own


def _first_state(
    group: dict[str, Any], parameter: Tensor, first_state: Callable[[Tensor], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Put together what the rule gives each matrix: as the parameter where it has its shape, else one after another."""
    views = matrices_of(group, parameter.detach())
    each = [first_state(view) for view in views]
    state = {}
    for name, first in each[0].items():
        if first.shape == views[0].shape:
            state[name] = torch.empty_like(parameter, dtype=first.dtype, requires_grad=False)
            for part, own in zip(matrices_of(group, state[name], like=parameter), each, strict=True):
                part.copy_(own[name])
        else:
            state[name] = torch.stack([own[name] for own in each])
    return state


def _parts(group: dict[str, Any], parameter: Tensor, state: dict[str, Tensor], name: str) -> list[Tensor]:
    """Return what of a state belongs to each matrix, as views."""
    if state[name].shape != parameter.shape:
        return list(state[name].unbind())
    if state[name].stride() != parameter.stride() and not is_distributed(
        parameter
    ):  # loaded into a model that lies otherwise in memory
        state[name] = torch.empty_like(parameter, dtype=state[name].dtype, requires_grad=False).copy_(state[name])
    return matrices_of(group, state[name], like=parameter)


def _by_stride(tensor: Tensor) -> list[int]:
    """Order the dimensions after the first as they lie in memory."""
    strides = tensor.stride()
    return [0, *sorted(range(1, tensor.ndim), key=lambda dimension: -strides[dimension])]


def _are_sizes(sizes: Any, rows: int) -> bool:
    return isinstance(sizes, list | tuple) and all(map(_is_count, sizes)) and sum(sizes) == rows


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
