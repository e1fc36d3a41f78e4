"""The last stage on parameters that lie apart, in place: X <- (1 − γ λ) X − γ s U, with the fewest passes over memory.

What `spectral.apply_update` says in one line takes a cast, two passes and their launches for each parameter. On a CPU
torch's kernel of fused gradient descent is that update, X <- X − γ s (U + (λ / s) X), in one pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectune.optimizers.foreach import multiply_
from spectune.optimizers.scratch import TEMPORARY, scratch
from spectune.optimizers.stacking import CACHED_ENTRIES, in_pieces


def write_(
    parameters: list[Tensor], directions: Tensor, *, lr: float | Tensor, weight_decay: float, factor: float = 1.0
) -> None:
    """Decay the parameters and step against directions: what `spectral.apply_update` does.

    Args:
        parameters: Of one shape, dtype and device; written.
        directions: Shape [count, rows, columns], any floating point dtype; only read.
        lr: Learning rate γ, a number or a tensor of one element, which is not read on the host.
        weight_decay: λ.
        factor: s, by which the directions are too short.
    """
    if isinstance(lr, Tensor):
        rate, dtype = lr.reshape(()), parameters[0].dtype
        if weight_decay != 0:
            multiply_(parameters, 1 - rate * weight_decay)
        steps = rate * factor * directions.to(torch.promote_types(dtype, torch.float32))  # rounded once, with the sum
        torch._foreach_sub_(parameters, steps.unbind())
    elif _is_fit_for_fused(parameters, directions):
        _write_fused_(parameters, directions, lr=lr * factor, weight_decay=weight_decay / factor)
    else:
        if weight_decay != 0:
            multiply_(parameters, 1 - lr * weight_decay)
        torch._foreach_sub_(parameters, directions.to(parameters[0].dtype).unbind(), alpha=lr * factor)


def _is_fit_for_fused(parameters: list[Tensor], directions: Tensor) -> bool:
    """Return whether the fused kernel, which takes entries as they lie in memory, does what is meant.

    In half precisions torch 2.13's does not, from sixteen entries on: with decay its results are wrong.
    """
    is_whole = parameters[0].dtype in (torch.float32, torch.float64)
    if directions.device.type != "cpu" or not is_whole or torch.compiler.is_compiling():
        return False
    return parameters[0].numel() > 0 and all(parameter.is_contiguous() for parameter in parameters)


def _write_fused_(parameters: list[Tensor], directions: Tensor, *, lr: float, weight_decay: float) -> None:
    count = max(1, CACHED_ENTRIES // parameters[0].numel())
    for start in range(0, len(parameters), count):  # so many at once as stay in the cache
        some, steps = parameters[start : start + count], directions[start : start + count]
        if len(some) > 1:
            _descend_(some, steps, lr=lr, weight_decay=weight_decay)
            continue
        for part, step in in_pieces(some[0], steps[0]):
            _descend_([part], step[None], lr=lr, weight_decay=weight_decay)


def _descend_(parameters: list[Tensor], steps: Tensor, *, lr: float, weight_decay: float) -> None:
    if steps.dtype != parameters[0].dtype or not steps.is_contiguous():
        steps = scratch(steps.shape, TEMPORARY, like=parameters[0]).copy_(steps)
    torch._fused_sgd_(
        parameters,
        list(steps.unbind()),
        [],
        weight_decay=weight_decay,
        momentum=0.0,
        lr=lr,
        dampening=0.0,
        nesterov=False,
        maximize=False,
        is_first_step=False,
    )
