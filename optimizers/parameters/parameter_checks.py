"""What a parameter and its gradient must be for an optimizer of ours, and what to call one that is not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor


def named(group: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield each parameter with what to call it in a message: its name where known, else its place in the group."""
    places = [f"parameter {place} of its group" for place in range(len(group["params"]))]
    yield from zip(group.get("param_names") or places, group["params"], strict=True)


def is_distributed(tensor: Any) -> bool:
    """Return whether a tensor is a DTensor; if their module is not loaded there is none."""
    distributed = sys.modules.get("torch.distributed.tensor")
    return distributed is not None and isinstance(tensor, distributed.DTensor)


def local(tensor: Any) -> Tensor:
    """Return what this process has of a replicated DTensor, in the same memory; another one gathered; else itself."""
    if not is_distributed(tensor):
        return cast(Tensor, tensor)
    is_replicated = all(placement.is_replicate() for placement in tensor.placements)
    return cast(Tensor, tensor.to_local() if is_replicated else tensor.full_tensor())


def check_parameter(name: str, parameter: Tensor) -> None:
    """Refuse a parameter that is not real floating point, or not whole on this process.

    Raises:
        ValueError: With the parameter's name, and its dtype or its shape and placements.
    """
    if not parameter.is_floating_point():
        raise ValueError(f"{name} is not real floating point, the only kind supported: got {parameter.dtype}")
    if any(size > 1 and stride == 0 for size, stride in zip(parameter.shape, parameter.stride(), strict=True)):
        got = f"got shape {tuple(parameter.shape)} with strides {parameter.stride()}"
        raise ValueError(f"{name} is expanded, several of its entries are one number: {got}")
    if not is_distributed(parameter):
        return
    # A shard's polar factor is not the shard of the polar factor.
    placements = cast(Any, parameter).placements
    if not all(placement.is_replicate() for placement in placements):
        kind = "a partial sum" if any(placement.is_partial() for placement in placements) else "sharded"
        got = f"got a DTensor of shape {tuple(parameter.shape)} with placements {placements}"
        raise ValueError(f"{name} is {kind}, only whole or replicated parameters are supported: {got}")


def refuse_gradients(group: dict[str, Any]) -> None:
    """Refuse gradients that are sparse or of another dtype than their parameter.

    Raises:
        ValueError: With the parameter's name, and its shape or the gradient's dtype.
    """
    given = [(parameter.dtype, parameter.grad) for parameter in group["params"]]
    if all(each is None or (each.dtype is dtype and each.layout is torch.strided) for dtype, each in given):
        return
    for name, parameter in named(group):
        gradient = parameter.grad
        if gradient is None:
            continue
        if gradient.layout != torch.strided:
            shape = tuple(parameter.shape)
            raise ValueError(f"{name} has a sparse gradient, only dense ones are supported: got one of shape {shape}")
        if gradient.dtype != parameter.dtype:  # torch allows it where `grad_dtype` is set
            raise ValueError(f"the gradient of {name} must be of its dtype, {parameter.dtype}: got {gradient.dtype}")
