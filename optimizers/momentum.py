"""Momentum, in the two conventions, and Nesterov's look ahead.

    average       B <- μ B + (1 − μ) G        look ahead  V = μ B + (1 − μ) G        (torch.optim.Muon, PolarGrad)
    heavy ball    B <- μ B + G                look ahead  V = μ B + G                (ROOT)

From zero they differ by a factor 1 − μ, which a polar factor does not see. Neither corrects for the start.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from optimizers.scratch import TEMPORARY, scratch
from optimizers.stacking import in_pieces, stack_into

STACKED_UP_TO: Final = 64 * 64
"""Entries up to which copying a matrix costs less than one more operation on it alone; measured on a CPU."""


def average(buffer: Tensor, gradient: Tensor, *, momentum: float | Tensor, nesterov: bool) -> tuple[Tensor, Tensor]:
    """Take the exponential moving average; give the new buffer and the vector to follow."""
    buffer = buffer.lerp(gradient, 1 - momentum)
    return buffer, gradient.lerp(buffer, momentum) if nesterov else buffer


def average_(
    buffers: list[Tensor], gradients: list[Tensor], *, momentum: float, nesterov: bool, followed: Tensor
) -> None:
    """Do what `average` does to tensors apart, in place: what there is to follow is stacked into `followed`."""
    if followed.dtype != buffers[0].dtype:
        _average_and_round_(buffers, gradients, momentum=momentum, nesterov=nesterov, followed=followed)
        return
    if nesterov and followed.device.type == "cpu" and buffers[0].numel() > STACKED_UP_TO:
        for buffer, gradient, ahead in zip(buffers, gradients, followed.unbind(), strict=True):
            buffer.lerp_(gradient, 1 - momentum)
            torch.lerp(gradient, buffer, momentum, out=ahead)  # while both are in the cache
        return
    torch._foreach_lerp_(buffers, gradients, 1 - momentum)
    if not nesterov:
        stack_into(followed, buffers)
        return
    stack_into(followed, gradients)
    if buffers[0].numel() <= STACKED_UP_TO:
        memory = scratch(followed.shape, TEMPORARY, like=followed)
        followed.lerp_(stack_into(memory, buffers), momentum)
    else:
        torch._foreach_lerp_(list(followed.unbind()), buffers, momentum)


def _average_and_round_(
    buffers: list[Tensor], gradients: list[Tensor], *, momentum: float, nesterov: bool, followed: Tensor
) -> None:
    """Round what is to follow in pieces, while they are in the cache."""
    for whole in zip(buffers, gradients, followed.unbind(), strict=True):
        for buffer, gradient, rounded in in_pieces(*whole):
            buffer.lerp_(gradient, 1 - momentum)
            ahead = scratch(buffer.shape, TEMPORARY, like=buffer) if nesterov else buffer
            rounded.copy_(torch.lerp(gradient, buffer, momentum, out=ahead) if nesterov else buffer)


def heavy_ball(buffer: Tensor, gradient: Tensor, *, momentum: float | Tensor, nesterov: bool) -> tuple[Tensor, Tensor]:
    """Take the decaying sum; give the new buffer and the vector to follow."""
    buffer = momentum * buffer + gradient
    return buffer, momentum * buffer + gradient if nesterov else buffer


def heavy_ball_(
    buffers: list[Tensor], gradients: list[Tensor], *, momentum: float, nesterov: bool, followed: Tensor
) -> None:
    """Do what `heavy_ball` does to tensors apart, in place: what there is to follow is stacked into `followed`."""
    torch._foreach_mul_(buffers, momentum)
    torch._foreach_add_(buffers, gradients)
    stack_into(followed, buffers)
    if not nesterov:
        return
    followed.mul_(momentum)
    if buffers[0].numel() <= STACKED_UP_TO:
        followed.add_(stack_into(scratch(followed.shape, TEMPORARY, like=followed), gradients))
    else:
        torch._foreach_add_(list(followed.unbind()), gradients)
