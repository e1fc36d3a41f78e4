"""Memory that is kept between calls, for what lives no longer than one.

On a CPU the system hands out large memory page by page as it is first touched: 1200 faults, a quarter of the time, for
five Newton-Schulz steps on 24 matrices of 64 × 256 in float32. Accelerators have caches of their own, so theirs is new.

This is the only place of the package that keeps tensors between calls, and `may_keep` alone decides whether it may: the
other caches (`lru_cache` of coefficients and schedules, fits on disk) hold numbers. A tensor takes on the modes it is
made under, inference mode, a default device, fake tensors, functorch: nothing is kept or lent while one is active.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

MAX_KEPT_BYTES: Final = 10 * 2**20
"""Of one use; where more is asked for, the arithmetic on it takes longer than the faults."""


MAX_KEPT_VIEWS: Final = 1024
"""Making a view takes as long as a product of 16 × 16, so those that were made are kept, up to this number."""

TEMPORARY: Final = "temporary"
"""A use shared by stages of one step that never need it at once, momenta, start, direction: less to leave the cache."""


class _Workspace(threading.local):
    def __init__(self) -> None:
        self.by_use: dict[tuple[str, torch.dtype], Tensor] = {}
        self.views: dict[tuple[str, torch.dtype, tuple[int, ...]], Tensor] = {}


_KEPT: Final = _Workspace()


def scratch(shape: Sequence[int], use: str, *, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return uninitialised memory that is the caller's until this thread asks again for the same use.

    Args:
        shape: Of the tensor.
        use: Who asks for what, as `quintic.A`.
        like: Its device, and its dtype where `dtype` is None.
        dtype: Of the tensor.
    """
    dtype = like.dtype if dtype is None else dtype
    if not may_keep(like):
        return like.new_empty(tuple(shape), dtype=dtype)
    if (known := _KEPT.views.get((use, dtype, tuple(shape)))) is not None:
        return known
    size = torch.Size(shape)
    if size.numel() * dtype.itemsize > MAX_KEPT_BYTES:
        return torch.empty(size, dtype=dtype, device=like.device)
    memory = _KEPT.by_use.get((use, dtype))
    if memory is None or memory.numel() < size.numel():
        memory = _KEPT.by_use[use, dtype] = torch.empty(size.numel(), dtype=dtype, device="cpu")
        _KEPT.views.clear()  # some are of the memory that is given up here
    view = memory[: size.numel()].view(size)
    if len(_KEPT.views) < MAX_KEPT_VIEWS:
        _KEPT.views[use, dtype, tuple(size)] = view
    return view


def may_be_scratch(tensor: Tensor) -> bool:
    """Return whether what is computed from a tensor may go to kept memory: `may_keep`, and nothing is recorded."""
    recorded = tensor.requires_grad and torch.is_grad_enabled()
    return not recorded and may_keep(tensor)


def may_overwrite(tensor: Tensor) -> bool:
    """Return whether a tensor that nothing else reads may be written over: not recorded, and under no mode."""
    return not tensor.requires_grad and not is_mode_active()


def may_keep(tensor: Tensor) -> bool:
    """Return whether memory for a tensor like this one may be kept: a plain one on a CPU, while no mode is active."""
    is_plain = type(tensor) is Tensor or type(tensor) is torch.nn.Parameter  # not a fake, functional or distributed one
    return is_plain and tensor.device.type == "cpu" and not is_mode_active() and not tensor.is_inference()


def is_mode_active() -> bool:
    """Return whether something else than eager torch makes tensors at the moment.

    Inference mode; function modes, as a default device; dispatch modes, as fake tensors; functorch; the compiler.
    """
    return (
        torch.compiler.is_compiling()  # first, for the compiler cannot follow the others
        or torch.is_inference_mode_enabled()
        or torch._C._len_torch_function_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._len_torch_dispatch_stack() > 0
    )
