"""The kept memory of the quintic iterations: where their matrices lie, and how rows lie in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from spectune.optimizers.polar.half_products import is_emulated
from spectune.optimizers.scratch import TEMPORARY, may_be_scratch, scratch

PADDED_COLUMNS: Final = 512
PADDING: Final = 32
"""Entries put between the rows of a kept half-precision matrix from so many columns on, one cache line: rows that start
a power of two apart share few sets of the cache. With AMX the products of a step take, for the same bits, 6 to 11 %
less time from 512 × 512 to 2048 × 2048 (`python -m benchmarks.padding`). A batch would be copied."""

ITERATES: Final = ("quintic.even", "quintic.odd")
"""Uses of the memory in which iterates lie, in turns."""


def lies_tall(X: Tensor) -> bool:
    """Return whether a wide matrix is a tall one seen from the side."""
    return X.shape[-2] < X.shape[-1] and has_whole_rows(X.mT)


def has_whole_rows(X: Tensor) -> bool:
    """Return whether each row is one block, the next one behind it."""
    return X.stride(-1) == 1 and X.stride(-2) >= X.shape[-1]


def memory_of_start(matrix: Tensor) -> Tensor | None:
    """Return kept memory for a normalized matrix, or None if new memory is as good."""
    if not may_be_scratch(matrix):
        return None
    return memory_of(matrix, TEMPORARY, torch.promote_types(matrix.dtype, torch.float32))


def memory_of(matrix: Tensor, use: str, dtype: torch.dtype) -> Tensor:
    """Return kept memory that lies as the matrix does."""
    if lies_tall(matrix):
        return scratch(matrix.mT.shape, use, like=matrix, dtype=dtype).mT
    return scratch(matrix.shape, use, like=matrix, dtype=dtype)


def padded_memory_of(matrix: Tensor, use: str, dtype: torch.dtype) -> Tensor:
    """Return kept memory that lies as the matrix does, with room between its rows where products gain by that."""
    if lies_tall(matrix):
        return _padded_scratch(matrix.mT.shape, use, like=matrix, dtype=dtype).mT
    return _padded_scratch(matrix.shape, use, like=matrix, dtype=dtype)


def _padded_scratch(shape: Sequence[int], use: str, *, like: Tensor, dtype: torch.dtype) -> Tensor:
    *batch, rows, columns = shape
    is_single = math.prod(batch) == 1  # a batched product would copy
    if not is_single or columns < PADDED_COLUMNS or dtype.itemsize != 2 or is_emulated(like):
        return scratch(shape, use, like=like, dtype=dtype)
    return scratch((*batch, rows, columns + PADDING), use, like=like, dtype=dtype)[..., :columns]


def memory_of_steps(X: Tensor) -> list[Tensor] | list[None]:
    """Return kept memory for A, B and two iterates, or None for each if new memory is as good."""
    if not may_be_scratch(X):
        return [None] * 4
    rows = min(X.shape[-2:])
    square = (*X.shape[:-2], rows, rows)
    shapes = {"quintic.A": square, "quintic.B": square} | dict.fromkeys(ITERATES, X.shape)
    return [_padded_scratch(shape, use, like=X, dtype=X.dtype) for use, shape in shapes.items()]


def memory_of_gram(X: Tensor) -> list[Tensor] | list[None]:
    """Return kept memory for R, B, R Z and two Q, or None for each if new memory is as good."""
    if not may_be_scratch(X):
        return [None] * 5
    shape = (len(X), X.shape[-2], X.shape[-2])
    return [scratch(shape, f"quintic.{name}", like=X) for name in ("A", "B", "RZ", "Q even", "Q odd")]
