"""Momentum, in the two conventions, and Nesterov's look ahead.

    average       B <- μ B + (1 − μ) G        look ahead  V = μ B + (1 − μ) G        (torch.optim.Muon, PolarGrad)
    heavy ball    B <- μ B + G                look ahead  V = μ B + G                (ROOT)

From zero they differ by a factor 1 − μ, which a polar factor does not see. Neither corrects for the start.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from spectune.optimizers.foreach import multiply_
from spectune.optimizers.scratch import TEMPORARY, may_be_scratch, scratch
from spectune.optimizers.stacking import in_pieces, stack_into

STACKED_UP_TO: Final = 64 * 64
"""Entries up to which copying a matrix costs less than one more operation on it alone; measured on a CPU."""


def average(buffer: Tensor, gradient: Tensor, *, momentum: float | Tensor, nesterov: bool) -> tuple[Tensor, Tensor]:
    """Compute the exponential moving average, and return the new buffer and the vector to follow."""
    buffer = buffer.lerp(gradient, 1 - momentum)
    return buffer, gradient.lerp(buffer, momentum) if nesterov else buffer


def average_into(
    buffers: list[Tensor], gradients: list[Tensor], *, momentum: float, nesterov: bool, followed: Tensor
) -> None:
    """Stack into `followed` what `average` gives to follow of tensors apart, which are only read."""
    is_rounded = followed.dtype != buffers[0].dtype
    if buffers[0].numel() <= STACKED_UP_TO or not may_be_scratch(buffers[0]):
        ahead = scratch(followed.shape, "momentum.ahead", like=buffers[0]) if is_rounded else followed
        stack_into(ahead, gradients)
        moved = stack_into(scratch(followed.shape, TEMPORARY, like=buffers[0]), buffers).lerp_(ahead, 1 - momentum)
        result = ahead.lerp_(moved, momentum) if nesterov else moved
        if result is not followed:
            followed.copy_(result)
    elif is_rounded:
        _average_and_round(buffers, gradients, momentum=momentum, nesterov=nesterov, followed=followed)
    else:
        memory = scratch(buffers[0].shape, TEMPORARY, like=followed)
        for buffer, gradient, ahead in zip(buffers, gradients, followed.unbind(), strict=True):
            moved = torch.lerp(buffer, gradient, 1 - momentum, out=memory if nesterov else ahead)
            if nesterov:
                torch.lerp(gradient, moved, momentum, out=ahead)  # while both are in the cache


def _average_and_round(
    buffers: list[Tensor], gradients: list[Tensor], *, momentum: float, nesterov: bool, followed: Tensor
) -> None:
    """Round what is to follow in pieces, while they are in the cache."""
    for whole in zip(buffers, gradients, followed.unbind(), strict=True):
        for buffer, gradient, rounded in in_pieces(*whole):
            memory = scratch(buffer.shape, TEMPORARY, like=buffer)
            moved = torch.lerp(buffer, gradient, 1 - momentum, out=memory)
            rounded.copy_(torch.lerp(gradient, moved, momentum, out=memory) if nesterov else moved)


def average_(buffers: list[Tensor], gradients: list[Tensor], *, momentum: float) -> None:
    """Move the buffers of tensors apart as `average` does, in place."""
    torch._foreach_lerp_(buffers, gradients, 1 - momentum)


def heavy_ball(buffer: Tensor, gradient: Tensor, *, momentum: float | Tensor, nesterov: bool) -> tuple[Tensor, Tensor]:
    """Compute the decaying sum, and return the new buffer and the vector to follow."""
    buffer = momentum * buffer + gradient
    return buffer, momentum * buffer + gradient if nesterov else buffer


def heavy_ball_into(
    buffers: list[Tensor], gradients: list[Tensor], *, momentum: float, nesterov: bool, followed: Tensor
) -> None:
    """Stack into `followed` what `heavy_ball` gives to follow of tensors apart, which are only read."""
    is_small = buffers[0].numel() <= STACKED_UP_TO
    stacked = stack_into(scratch(followed.shape, TEMPORARY, like=followed), gradients) if is_small else None
    stack_into(followed, buffers)
    for _ in range(2 if nesterov else 1):
        followed.mul_(momentum)
        if stacked is not None:
            followed.add_(stacked)
        else:
            torch._foreach_add_(list(followed.unbind()), gradients)


def heavy_ball_(buffers: list[Tensor], gradients: list[Tensor], *, momentum: float) -> None:
    """Move the buffers of tensors apart as `heavy_ball` does, in place."""
    multiply_(buffers, momentum)
    torch._foreach_add_(buffers, gradients)
