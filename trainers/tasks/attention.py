"""Attention for tasks: softmax(Q Kᵀ / √d) V over heads, the same kernel for one trial and for a stack of trials.

torch has no batching rule for its CPU kernel: under `torch.func.vmap` it would loop over the trials, with a warning.
Here the trials of a stack are folded into the batch, forward and backward, so that one call of the kernel serves all.
On other devices torch's own rules do that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def attend(query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> Tensor:
    """Mix the values of each head; where causal, those of the past. All are (batch, heads, positions, width)."""
    if query.device.type != "cpu":
        return functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
    mixed: Tensor = _Attention.apply(query, key, value, causal)[0]  # type: ignore[no-untyped-call]
    return mixed


class _Attention(torch.autograd.Function):
    """The CPU kernel: (query, key, value, causal) to (mixed, logarithms of the softmax's denominators)."""

    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
        mixed, denominators = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, causal)
        return mixed, denominators

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *tensors, ctx.causal = inputs
        ctx.save_for_backward(*tensors, *output)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        gradients = _AttentionGradient.apply(gradient, *ctx.saved_tensors, ctx.causal)  # type: ignore[no-untyped-call]
        return *gradients, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Any, Any]:
        return _folded(_Attention, info.batch_size, in_dims, inputs)


class _AttentionGradient(torch.autograd.Function):
    """The CPU kernel's gradient, which is not differentiable itself."""

    @staticmethod
    def forward(
        gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, mixed: Tensor, denominators: Tensor, causal: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        first, second, third = kernel(gradient, query, key, value, mixed, denominators, 0.0, causal)
        return first, second, third

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError("attention on the CPU has no second derivative")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Any, Any]:
        return _folded(_AttentionGradient, info.batch_size, in_dims, inputs)


def _folded(kernel: Any, trials: int, in_dims: tuple[int | None, ...], inputs: tuple[Any, ...]) -> tuple[Any, Any]:
    """Call a kernel once for a stack of trials: each tensor's trials and batch become one dimension, and two again."""
    *tensors, causal = inputs
    folded = [_trials_first(each, dim, trials).flatten(0, 1) for each, dim in zip(tensors, in_dims, strict=False)]
    outputs = tuple(each.unflatten(0, (trials, -1)) for each in kernel.apply(*folded, causal))
    return outputs, (0,) * len(outputs)


def _trials_first(tensor: Tensor, dim: int | None, trials: int) -> Tensor:
    return tensor.expand(trials, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
