"""Odd quintic iterations X <- a X + b (X Xᵀ) X + c (X Xᵀ)² X on wide matrices [batch, m, n], m <= n.

    plain    A = X Xᵀ,  B = b A + c A²,  X <- a X + B X                      4 α + 2 for each step
    gram     R = X Xᵀ once, then on m × m alone:  Z = a I + b R + c R²,  Q <- Z Q,  R <- Z R Z,
             at last X <- Q X; begun anew (X, then R) after step 2            8 α + 28 for five steps
             in bfloat16 after steps 2 and 4, of which the fifth is plain    12 α + 22

in units of m³ flops with α = n / m, so the Gram form (Dao-AILab, gram-newton-schulz) pays above α = 1.5. Without the
new beginning its rounding grows like that of a normal equation. A tall matrix Y = Xᵀ is iterated as it lies, A = Yᵀ Y,
Y <- a Y + Y B, and never turned: a copy that transposes takes as long as two of the products.

The start is divided by a bound of σ₁. Frobenius' is the usual one, 0.06 to 0.9 of it. Ours is Schatten-8: from
A = X Xᵀ and A², which the first step forms anyway,

    s = ‖A²‖_F^¼ = (Σ σ⁸)^⅛,    σ₁ <= s <= r^⅛ σ₁,

folded into the first step as X / s, A / s², A² / s⁴: no further product, nothing read on the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from spectune.optimizers.polar.coefficients import Triple
from spectune.optimizers.polar.half_products import addmm, baddbmm, bmm, is_emulated, mm
from spectune.optimizers.polar.normalization import normalised, schatten_8, squares_survived, unit
from spectune.optimizers.polar.quintic_memory import (
    ITERATES,
    has_whole_rows,
    lies_tall,
    memory_of,
    memory_of_gram,
    memory_of_start,
    memory_of_steps,
    padded_memory_of,
)
from spectune.optimizers.scratch import may_be_scratch, scratch
from spectune.optimizers.stacking import CACHED_ENTRIES

GRAM_FROM: Final = 1.5
"""n / m above which the Gram form takes fewer flops."""

LOOPED_ROWS: Final = 192
"""Measured on CPU in float32, 24 matrices: batched products win below (2.5 times at 64 rows), single ones from there on
(1.2 times at 256, one core or two). In bfloat16 the batch is never behind."""

FIRST_SEGMENT: Final = 2
LATER_SEGMENTS: Final = 3
BFLOAT16_SLOPE: Final = 12.5
"""Two steps of the classic triple (11.9) or of ROOT's. In bfloat16 segments of 2, 3 err 2 to 3 times as much as the
plain form where κ >= 500, and with the slopes of `minimax` (34) give NaN; 2, 2, 1 err less than it there and more on
Gaussian matrices: .012 instead of .011 (docs/decisions/0103)."""


@dataclass(frozen=True, kw_only=True)
class Quintic:
    """What is iterated.

    Attributes:
        triples: (a, b, c) of each step.
        divisor: The start is divided by this times Frobenius' norm.
        by_schatten: Whether by the Schatten-8 norm instead.
        in_gram_form: Whether on X Xᵀ.
    """

    triples: tuple[Triple, ...]
    divisor: float = 1.0
    by_schatten: bool = False
    in_gram_form: bool = False


def iterated(
    matrix: Tensor,
    counts: list[int],
    quintic: Quintic,
    *,
    eps: float | Tensor,
    dtype: torch.dtype,
    lends: bool = False,
) -> Tensor:
    """Normalise each matrix of [..., m, n], m <= n, and take its steps.

    Args:
        matrix: Floating point.
        counts: Steps of each matrix of the flattened batch, at most as many as there are triples.
        quintic: What to iterate.
        eps: Norms below it count as it; broadcasts as [..., 1, 1].
        dtype: Of the products; the norms are taken in float32 or float64, for bfloat16 input in bfloat16 from sums in
            float32, as torch.optim.Muon takes them.
        lends: Whether the result may lie in memory that the next call in this thread writes over.

    Returns:
        Shape of `matrix`, in `dtype`. Zero gives zero, a non-finite matrix one without a finite entry.
    """
    shortness = None
    if quintic.by_schatten:
        start, shortness = unit(matrix, eps=eps)
        start = start * matrix.shape[-2] ** 0.25  # else A² underflows in float16
        shortness = shortness.expand(*matrix.shape[:-2], 1, 1).reshape(-1, 1, 1)
    else:
        start = _frobenius_start(matrix, eps, quintic.divisor, dtype)
    flat = start.to(dtype).reshape(-1, *matrix.shape[-2:])
    flat = flat if lies_tall(flat) or has_whole_rows(flat) else flat.contiguous()
    if len(set(counts)) == 1:
        return _run(flat, shortness, quintic, counts[0], lends).reshape(matrix.shape)
    unequal = _grouped if quintic.in_gram_form else _narrowing
    return unequal(flat, shortness, counts, quintic).reshape(matrix.shape)


def _frobenius_start(matrix: Tensor, eps: float | Tensor, safety: float, dtype: torch.dtype) -> Tensor:
    """Normalise, and where half precision follows on a CPU cast as well, in pieces that stay in its cache."""
    if not may_be_scratch(matrix) or dtype.itemsize != 2 or isinstance(eps, Tensor):
        return normalised(matrix, eps=eps, safety=safety, out=memory_of_start(matrix))
    flat = matrix.reshape(-1, *matrix.shape[-2:])
    start = padded_memory_of(flat, "quintic.odd", dtype)  # read by the first step only, so the second may write there
    if flat.dtype == dtype == torch.bfloat16:  # in its own arithmetic a third of the time
        norm = torch.linalg.vector_norm(flat, dim=(-2, -1), keepdim=True)
        if squares_survived(norm):
            return torch.div(flat, norm.clamp(min=eps) * safety, out=start)
    count = max(1, CACHED_ENTRIES // flat[0].numel())
    for part, target in zip(torch.split(flat, count), torch.split(start, count), strict=True):
        target.copy_(normalised(part, eps=eps, safety=safety, out=memory_of_start(part)))
    return start


def _narrowing(start: Tensor, shortness: Tensor | None, counts: list[int], quintic: Quintic) -> Tensor:
    """Take each matrix its own number of steps: sorted, so that finished ones drop off the end."""
    order = sorted(range(len(counts)), key=lambda index: -counts[index])
    active, finished = start[order], []
    for step, triple in enumerate(quintic.triples):
        num_active = sum(count > step for count in counts)
        finished.append(active[num_active:])
        active = active[:num_active]
        if step == 0 and shortness is not None:
            active = _first_step(active, shortness[order], triple)
        else:
            active = _plain(active, [triple])
    ordered = torch.cat([active, *reversed(finished)])
    return torch.empty_like(ordered).index_copy_(0, torch.tensor(order, device=start.device), ordered)


def _grouped(start: Tensor, shortness: Tensor | None, counts: list[int], quintic: Quintic) -> Tensor:
    """Take the matrices of equal counts together, as the Gram form must, which has no iterate in between."""
    result = torch.empty_like(start)
    for count in set(counts):
        where = torch.tensor([index for index, other in enumerate(counts) if other == count], device=start.device)
        short = None if shortness is None else shortness[where]
        result.index_copy_(0, where, _run(start[where], short, quintic, count))
    return result


def _run(start: Tensor, shortness: Tensor | None, quintic: Quintic, count: int, lends: bool = False) -> Tensor:
    triples = quintic.triples[:count]
    if quintic.in_gram_form:
        return _gram(start, shortness, triples, lends)
    if shortness is not None:
        return _plain(_first_step(start, shortness, triples[0]), triples[1:], lends)
    return _plain(start, triples, lends)


def _plain(start: Tensor, triples: Sequence[Triple], lends: bool = False) -> Tensor:
    is_tall = lies_tall(start)
    as_it_lies = start.mT if is_tall else start
    lends = lends and may_be_scratch(start)
    if len(start) == 1:  # a single matrix has a faster path through BLAS than a batch of one
        result = _plain_steps(as_it_lies[0], is_tall, triples, mm, addmm, lends)[None]
    elif _is_looped(start):
        each = [_plain_steps(matrix, is_tall, triples, mm, addmm) for matrix in as_it_lies]
        memory = scratch(as_it_lies.shape, "quintic.results", like=start) if lends else None
        result = torch.stack(each, out=memory)
    else:
        result = _plain_steps(as_it_lies, is_tall, triples, bmm, baddbmm, lends)
    return result.mT if is_tall else result


def _is_looped(start: Tensor) -> bool:
    in_float32 = start.dtype == torch.float32 or is_emulated(start)
    return start.device.type == "cpu" and in_float32 and start.shape[-2] >= LOOPED_ROWS


def _plain_steps(
    X: Tensor,
    is_tall: bool,
    triples: Sequence[Triple],
    multiply: Callable[..., Tensor],
    multiply_add: Callable[..., Tensor],
    lends: bool = False,
) -> Tensor:
    A, B, *iterates = memory_of_steps(X)
    for step, (a, b, c) in enumerate(triples):
        out = iterates[step % 2]
        if step == len(triples) - 1:  # whoever takes the result reads it as one block
            out = memory_of(X, ITERATES[step % 2], X.dtype) if lends else None
        # A square A lies where the next iterate will: three matrices in the cache instead of four
        A = iterates[step % 2] if step > 0 and X.shape[-2] == X.shape[-1] else A
        squared = multiply(X.mT, X, out=A) if is_tall else multiply(X, X.mT, out=A)
        added = multiply_add(squared, squared, squared, beta=b, alpha=c, out=B)
        X = multiply_add(X, *((X, added) if is_tall else (added, X)), beta=a, out=out)
    return X


def _first_step(X: Tensor, shortness: Tensor, triple: Triple) -> Tensor:
    """Divide by the Schatten-8 norm and step: (a / s) X + (b / s³ A + c / s⁵ A²) X, rounded once each."""
    a, b, c = triple
    A = bmm(X, X.mT)
    square = bmm(A, A)
    s = schatten_8(square) * shortness
    B = (b / s**3 * A + c / s**5 * square).to(X.dtype)
    shrunk = (a / s * X).to(X.dtype)
    return baddbmm(shrunk.mT, X.mT, B.mT).mT if lies_tall(X) else baddbmm(shrunk, B, X)


def _gram(X: Tensor, shortness: Tensor | None, triples: Sequence[Triple], lends: bool = False) -> Tensor:
    """Take the steps on the Gram matrix, in segments; divide by Schatten-8 where `shortness` is given."""
    start = 0
    for place, length in enumerate(segments(triples, X.dtype)):
        part = triples[start : start + length]
        if length > 1:
            keeps = may_be_scratch(X) and (lends or start + length < len(triples))
            out = memory_of(X, ITERATES[place % 2], X.dtype) if keeps else None
            X = _segment(X, part, shortness, out)
        elif shortness is not None:
            X = _first_step(X, shortness, part[0])
        else:
            X = _plain(X, part)
        start, shortness = start + length, None
    return X


def segments(triples: Sequence[Triple], dtype: torch.dtype) -> list[int]:
    """Return the number of steps in each segment of the Gram form; a segment of one is a plain step.

    2, 3, 3, …, but in bfloat16 as many, up to two, as keep the product of their slopes a below `BFLOAT16_SLOPE`: Q is
    as large as that, and its rounding, 2⁻⁹ of it, is what the Gram form adds.
    """
    lengths: list[int] = []
    while (start := sum(lengths)) < len(triples):
        longest = LATER_SEGMENTS if lengths and dtype != torch.bfloat16 else FIRST_SEGMENT
        if dtype == torch.bfloat16 and math.prod(a for a, _, _ in triples[start : start + longest]) > BFLOAT16_SLOPE:
            longest = 1
        lengths.append(min(longest, len(triples) - start))
    return lengths


def _segment(X: Tensor, triples: Sequence[Triple], shortness: Tensor | None, out: Tensor | None) -> Tensor:
    R_memory, B_memory, RZ_memory, *Q_memory = memory_of_gram(X)
    R = bmm(X, X.mT, out=R_memory)
    square, s = None, None
    if shortness is not None:
        square = bmm(R, R)
        s = schatten_8(square) * shortness
        R, square = (R / s**2).to(X.dtype), square / s**4
    Q = None
    for step, (a, b, c) in enumerate(triples):
        if square is None:
            B = baddbmm(R, R, R, beta=b, alpha=c, out=B_memory)
        else:
            B, square = (b * R + c * square).to(X.dtype), None
        Q = _plus_diagonal(B, a) if Q is None else baddbmm(Q, B, Q, beta=a, out=Q_memory[step % 2])
        if step + 1 < len(triples):
            RZ = baddbmm(R, R, B, beta=a, out=RZ_memory)
            R = baddbmm(RZ, B, RZ, beta=a, out=R_memory)
    assert Q is not None
    Q = Q if s is None else (Q / s).to(X.dtype)
    if lies_tall(X):
        return bmm(X.mT, Q.mT, out=None if out is None else out.mT).mT
    return bmm(Q, X, out=out)


def _plus_diagonal(matrix: Tensor, value: float) -> Tensor:
    result = matrix.clone()
    result.diagonal(dim1=-2, dim2=-1).add_(value)
    return result
