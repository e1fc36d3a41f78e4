"""Products in bfloat16 on every processor: of rounded entries, summed in float32, the sum rounded once.

A processor with bfloat16 instructions does this in one call. On any other, torch 2.13 is 5 times (AVX-512) to 90 times
(AVX2) slower in bfloat16 than in float32 at 512 × 512. There the entries, which float32 holds exactly, are multiplied
in float32 and the result is rounded: the same arithmetic, up to the order in which a sum is taken.
"""

from __future__ import annotations

import platform
from collections.abc import Callable

import torch
from torch import Tensor

from spectune.optimizers.scratch import may_be_scratch, scratch


def has_bfloat16_instructions() -> bool:
    """Return whether this machine's processor multiplies bfloat16 in instructions of its own that torch uses."""
    is_built_in: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # untyped in torch
    if not is_built_in or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return not is_x86 or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


IS_NATIVE: bool | None = None
"""What `has_bfloat16_instructions` returned; None before `look`, which must not come before the first computation:
oneDNN would settle on its instructions then, and a worker pins them later than it imports this."""


def look() -> None:
    """Find out once, outside of any compiled step, how this process multiplies."""
    global IS_NATIVE  # a fact about the process
    if IS_NATIVE is None:
        IS_NATIVE = has_bfloat16_instructions()


def is_emulated(matrix: Tensor) -> bool:
    """Return whether products of this matrix are taken in float32 and rounded."""
    if matrix.dtype != torch.bfloat16 or matrix.device.type != "cpu":
        return False
    if IS_NATIVE is None:
        look()
    return not IS_NATIVE


def mm(left: Tensor, right: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Return left · right, as `torch.mm`."""
    return _rounded(torch.mm, left, right, out) if is_emulated(left) else torch.mm(left, right, out=out)


def bmm(left: Tensor, right: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Return left · right of each pair, as `torch.bmm`."""
    return _rounded(torch.bmm, left, right, out) if is_emulated(left) else torch.bmm(left, right, out=out)


def addmm(
    added: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1, out: Tensor | None = None
) -> Tensor:
    """Return beta · added + alpha · left · right, as `torch.addmm`."""
    if not is_emulated(left):
        return torch.addmm(added, left, right, beta=beta, alpha=alpha, out=out)
    return _rounded_sum(torch.addmm, added, left, right, beta, alpha, out)


def baddbmm(
    added: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1, out: Tensor | None = None
) -> Tensor:
    """Return beta · added + alpha · left · right of each, as `torch.baddbmm`."""
    if not is_emulated(left):
        return torch.baddbmm(added, left, right, beta=beta, alpha=alpha, out=out)
    return _rounded_sum(torch.baddbmm, added, left, right, beta, alpha, out)


def _rounded(multiply: Callable[..., Tensor], left: Tensor, right: Tensor, out: Tensor | None) -> Tensor:
    wide_left = _widened(left, "left")
    wide_right = _of_same_entries(right, left, wide_left)
    shape = (*left.shape[:-1], right.shape[-1])
    memory = scratch(shape, "half_products.sum", like=left, dtype=torch.float32) if may_be_scratch(left) else None
    product = multiply(wide_left, wide_right, out=memory)
    return product.to(left.dtype) if out is None else out.copy_(product)


def _rounded_sum(
    multiply_add: Callable[..., Tensor],
    added: Tensor,
    left: Tensor,
    right: Tensor,
    beta: float,
    alpha: float,
    out: Tensor | None,
) -> Tensor:
    wide_left = _widened(left, "left")
    wide_right = _of_same_entries(right, left, wide_left)
    wide = _widened(added, "sum")
    total = multiply_add(
        wide, wide_left, wide_right, beta=beta, alpha=alpha, out=wide if may_be_scratch(added) else None
    )
    return total.to(left.dtype) if out is None else out.copy_(total)


def _widened(matrix: Tensor, use: str) -> Tensor:
    """Return the matrix in float32, in kept memory if possible, lying as it does."""
    if not may_be_scratch(matrix):
        return matrix.float()
    if matrix.mT.is_contiguous() and not matrix.is_contiguous():
        return scratch(matrix.mT.shape, f"half_products.{use}", like=matrix, dtype=torch.float32).copy_(matrix.mT).mT
    return scratch(matrix.shape, f"half_products.{use}", like=matrix, dtype=torch.float32).copy_(matrix)


def _of_same_entries(right: Tensor, left: Tensor, wide_left: Tensor) -> Tensor:
    """Return the right factor in float32; X Xᵀ and A² are widened once."""
    if may_be_scratch(left) and right.data_ptr() == left.data_ptr():
        if right.shape == left.shape and right.stride() == left.stride():
            return wide_left
        if right.shape == left.mT.shape and right.stride() == left.mT.stride():
            return wide_left.mT
    return _widened(right, "right")
