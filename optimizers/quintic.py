"""Odd quintic iterations X <- a X + b (X Xᵀ) X + c (X Xᵀ)² X on wide matrices [batch, m, n], m <= n.

    plain    A = X Xᵀ,  B = b A + c A²,  X <- a X + B X                      4 α + 2 for each step
    gram     R = X Xᵀ once, then on m × m alone:  Z = a I + b R + c R²,  Q <- Z Q,  R <- Z R Z,
             at last X <- Q X; begun anew (X, then R) after step 2            8 α + 28 for five steps

in units of m³ flops with α = n / m, so the Gram form (Dao-AILab, gram-newton-schulz) pays above α = 1.5. Without the
new beginning its rounding grows like that of a normal equation. A tall matrix Y = Xᵀ is iterated as it lies, A = Yᵀ Y,
Y <- a Y + Y B, and never turned: a copy that transposes takes as long as two of the products.

The start is divided by a bound of σ₁. Frobenius' is the usual one, 0.06 to 0.9 of it. Ours is Schatten-8: from
A = X Xᵀ and A², which the first step forms anyway,

    s = ‖A²‖_F^¼ = (Σ σ⁸)^⅛,    σ₁ <= s <= r^⅛ σ₁,

folded into the first step as X / s, A / s², A² / s⁴: no further product, nothing read on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from optimizers.coefficients import Triple
from optimizers.scratch import TEMPORARY, may_be_scratch, scratch

GRAM_FROM: Final = 1.5
"""n / m above which the Gram form takes fewer flops."""

LOOPED_ROWS: Final = 192
"""Measured on CPU in float32, 24 matrices: batched products win below (2.5 times at 64 rows), single ones from there on
(1.2 times at 256, one core or two). In bfloat16 the batch is never behind."""

CACHED_ENTRIES: Final = 2**17
"""Entries that are normalised and cast at once on a CPU: 1.25 MB of float32 in, between and half precision out, below
the second cache of a server's core."""

FIRST_SEGMENT: Final = 2
LATER_SEGMENTS: Final = 3


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


def iterated(matrix: Tensor, counts: list[int], quintic: Quintic, *, eps: float | Tensor, dtype: torch.dtype) -> Tensor:
    """Normalise each matrix of [..., m, n], m <= n, and take its steps.

    Args:
        matrix: Floating point.
        counts: Steps of each matrix of the flattened batch, at most as many as there are triples.
        quintic: What to iterate.
        eps: Norms below it count as it; broadcasts as [..., 1, 1].
        dtype: Of the products; the norms are taken in float32 or float64.

    Returns:
        Shape of `matrix`, in `dtype`. Zero gives zero, a non-finite matrix one without a finite entry.
    """
    if quintic.by_schatten:
        start, shortness = unit(matrix, eps=eps)
        start = start * matrix.shape[-2] ** 0.25  # else A² underflows in float16
    else:
        start = _frobenius_start(matrix, eps, quintic.divisor, dtype)
        shortness = torch.ones((), device=matrix.device)
    flat = start.to(dtype).reshape(-1, *matrix.shape[-2:])
    flat = flat if _lies_tall(flat) else flat.contiguous()
    shortness = shortness.expand(*matrix.shape[:-2], 1, 1).reshape(-1, 1, 1)
    if len(set(counts)) == 1:
        return _run(flat, shortness, quintic, counts[0]).reshape(matrix.shape)
    unequal = _grouped if quintic.in_gram_form else _narrowing
    return unequal(flat, shortness, counts, quintic).reshape(matrix.shape)


def _frobenius_start(matrix: Tensor, eps: float | Tensor, safety: float, dtype: torch.dtype) -> Tensor:
    """Normalise, and where half precision follows on a CPU cast as well, in pieces that stay in its cache."""
    if not may_be_scratch(matrix) or dtype.itemsize != 2 or isinstance(eps, Tensor):
        return normalised(matrix, eps=eps, safety=safety, out=_memory_of_start(matrix))
    flat = matrix.reshape(-1, *matrix.shape[-2:])
    start = _memory_of(flat, "quintic.odd", dtype)  # read by the first step only, so the second may write there
    count = max(1, CACHED_ENTRIES // flat[0].numel())
    for part, target in zip(torch.split(flat, count), torch.split(start, count), strict=True):
        target.copy_(normalised(part, eps=eps, safety=safety, out=_memory_of_start(part)))
    return start


def normalised(matrix: Tensor, *, eps: float | Tensor, safety: float, out: Tensor | None = None) -> Tensor:
    """Divide each matrix by safety · max(‖G‖_F, eps); 1e-30 and 1e30 survive. `out` is memory for it.

    The detour through a power of two near the largest entry changes no digit of a matrix that did not need it, so
    leaving it out where no matrix of the batch does keeps every matrix independent of the others, bit for bit.
    """
    wide = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    norm = torch.linalg.vector_norm(wide, dim=(-2, -1), keepdim=True)
    if _squares_survived(norm) and not isinstance(eps, Tensor):
        return torch.div(wide, norm.clamp(min=eps) * safety, out=out)
    shrunk, scale, norm = _shrunk(wide)
    smallest = eps if isinstance(eps, Tensor) else torch.full_like(scale, eps)  # `eps / scale` takes 1 / scale first
    norm = torch.maximum(norm, smallest / scale)
    return shrunk / (safety * torch.where(norm == 0, 1.0, norm))


def unit(matrix: Tensor, *, eps: float | Tensor) -> tuple[Tensor, Tensor]:
    """Give G / ‖G‖_F, and max(1, eps / ‖G‖_F), by which a later normalisation is to fall short."""
    shrunk, scale, norm = _shrunk(matrix.to(torch.promote_types(matrix.dtype, torch.float32)))
    norm = torch.where(norm == 0, 1.0, norm)
    smallest = eps if isinstance(eps, Tensor) else torch.full_like(scale, eps)
    return shrunk / norm, (smallest / scale / norm).clamp_min(1.0)


def _squares_survived(norm: Tensor) -> bool:
    """Say whether norms of float32 can be trusted; on a device that would mean to wait for it, so nothing is known."""
    if norm.device.type != "cpu" or torch.compiler.is_compiling() or norm.numel() == 0:
        return False
    smallest, largest = norm.aminmax()  # NaN passes neither comparison
    return bool(smallest > 1e-12) and bool(largest < 1e12)


def schatten_8(square: Tensor) -> Tensor:
    """Give (Σ σ⁸)^⅛, at least σ₁, from (X Xᵀ)²; [..., 1, 1], at least float32, 1 for zero."""
    dtype = torch.promote_types(square.dtype, torch.float32)
    bound: Tensor = torch.linalg.vector_norm(square, dim=(-2, -1), keepdim=True, dtype=dtype).sqrt().sqrt()
    return torch.where(bound == 0, 1.0, bound)


def _shrunk(wide: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give G / p, the power of two p near max|G| (1 for zero), and the norm of the former."""
    largest = wide.abs().amax(dim=(-2, -1), keepdim=True)
    scale = torch.where(largest.isfinite() & (largest > 0), largest / (2 * largest.frexp().mantissa), 1.0)
    shrunk = wide / scale
    return shrunk, scale, torch.linalg.vector_norm(shrunk, dim=(-2, -1), keepdim=True)


def _narrowing(start: Tensor, shortness: Tensor, counts: list[int], quintic: Quintic) -> Tensor:
    """Take each matrix its own number of steps: sorted, so that finished ones drop off the end."""
    order = sorted(range(len(counts)), key=lambda index: -counts[index])
    active, finished = start[order], []
    for step, triple in enumerate(quintic.triples):
        num_active = sum(count > step for count in counts)
        finished.append(active[num_active:])
        active = active[:num_active]
        if step == 0 and quintic.by_schatten:
            active = _first_step(active, shortness[order], triple)
        else:
            active = _plain(active, [triple])
    ordered = torch.cat([active, *reversed(finished)])
    return torch.empty_like(ordered).index_copy_(0, torch.tensor(order, device=start.device), ordered)


def _grouped(start: Tensor, shortness: Tensor, counts: list[int], quintic: Quintic) -> Tensor:
    """Take the matrices of equal counts together, as the Gram form must, which has no iterate in between."""
    result = torch.empty_like(start)
    for count in set(counts):
        where = torch.tensor([index for index, other in enumerate(counts) if other == count], device=start.device)
        result.index_copy_(0, where, _run(start[where], shortness[where], quintic, count))
    return result


def _run(start: Tensor, shortness: Tensor, quintic: Quintic, count: int) -> Tensor:
    triples = quintic.triples[:count]
    if quintic.in_gram_form:
        return _gram(start, shortness if quintic.by_schatten else None, triples)
    if quintic.by_schatten:
        return _plain(_first_step(start, shortness, triples[0]), triples[1:])
    return _plain(start, triples)


def _plain(start: Tensor, triples: Sequence[Triple]) -> Tensor:
    lies_tall = _lies_tall(start)
    as_it_lies = start.mT if lies_tall else start
    if len(start) == 1:  # a single matrix has a faster path through BLAS than a batch of one
        result = _plain_steps(as_it_lies[0], lies_tall, triples, torch.mm, torch.addmm)[None]
    elif start.device.type == "cpu" and start.dtype == torch.float32 and start.shape[-2] >= LOOPED_ROWS:
        each = [_plain_steps(matrix, lies_tall, triples, torch.mm, torch.addmm) for matrix in as_it_lies]
        result = torch.stack(each)
    else:
        result = _plain_steps(as_it_lies, lies_tall, triples, torch.bmm, torch.baddbmm)
    return result.mT if lies_tall else result


def _plain_steps(
    X: Tensor,
    lies_tall: bool,
    triples: Sequence[Triple],
    multiply: Callable[..., Tensor],
    multiply_add: Callable[..., Tensor],
) -> Tensor:
    A, B, *iterates = _memory(X)
    for step, (a, b, c) in enumerate(triples):
        out = None if step == len(triples) - 1 else iterates[step % 2]
        squared = multiply(X.mT, X, out=A) if lies_tall else multiply(X, X.mT, out=A)
        added = multiply_add(squared, squared, squared, beta=b, alpha=c, out=B)
        X = multiply_add(X, *((X, added) if lies_tall else (added, X)), beta=a, out=out)
    return X


def _lies_tall(X: Tensor) -> bool:
    """Say whether a wide matrix is a tall one seen from the side."""
    return X.shape[-2] < X.shape[-1] and X.mT.is_contiguous() and not X.is_contiguous()


def _memory_of_start(matrix: Tensor) -> Tensor | None:
    if not may_be_scratch(matrix):
        return None
    return _memory_of(matrix, TEMPORARY, torch.promote_types(matrix.dtype, torch.float32))


def _memory_of(matrix: Tensor, use: str, dtype: torch.dtype) -> Tensor:
    """Give kept memory that lies as the matrix does."""
    if _lies_tall(matrix):
        return scratch(matrix.mT.shape, use, like=matrix, dtype=dtype).mT
    return scratch(matrix.shape, use, like=matrix, dtype=dtype)


def _memory(X: Tensor) -> list[Tensor] | list[None]:
    """Give kept memory for A, B and two iterates, or None for each where new memory is as good."""
    if not may_be_scratch(X):
        return [None] * 4
    rows = min(X.shape[-2:])
    square = (*X.shape[:-2], rows, rows)
    shapes = {"A": square, "B": square, "even": X.shape, "odd": X.shape}
    return [scratch(shape, f"quintic.{name}", like=X) for name, shape in shapes.items()]


def _first_step(X: Tensor, shortness: Tensor, triple: Triple) -> Tensor:
    """Divide by the Schatten-8 norm and step: (a / s) X + (b / s³ A + c / s⁵ A²) X, rounded once each."""
    a, b, c = triple
    A = X @ X.mT
    square = A @ A
    s = schatten_8(square) * shortness
    B = (b / s**3 * A + c / s**5 * square).to(X.dtype)
    shrunk = (a / s * X).to(X.dtype)
    return torch.baddbmm(shrunk.mT, X.mT, B.mT).mT if _lies_tall(X) else torch.baddbmm(shrunk, B, X)


def _gram(X: Tensor, shortness: Tensor | None, triples: Sequence[Triple]) -> Tensor:
    """Take the steps on the Gram matrix, in segments of 2, 3, 3, …; divide by Schatten-8 where `shortness` is given."""
    X = _segment(X, triples[:FIRST_SEGMENT], shortness)
    for start in range(FIRST_SEGMENT, len(triples), LATER_SEGMENTS):
        X = _segment(X, triples[start : start + LATER_SEGMENTS], None)
    return X


def _segment(X: Tensor, triples: Sequence[Triple], shortness: Tensor | None) -> Tensor:
    R = X @ X.mT
    square, s = None, None
    if shortness is not None:
        square = R @ R
        s = schatten_8(square) * shortness
        R, square = (R / s**2).to(X.dtype), square / s**4
    Q = None
    for step, (a, b, c) in enumerate(triples):
        B = torch.baddbmm(R, R, R, beta=b, alpha=c) if square is None else (b * R + c * square).to(X.dtype)
        square = None
        Q = _plus_diagonal(B, a) if Q is None else torch.baddbmm(Q, B, Q, beta=a)
        if step + 1 < len(triples):
            RZ = torch.baddbmm(R, R, B, beta=a)
            R = torch.baddbmm(RZ, B, RZ, beta=a)
    assert Q is not None
    return (Q if s is None else (Q / s).to(X.dtype)) @ X


def _plus_diagonal(matrix: Tensor, value: float) -> Tensor:
    result = matrix.clone()
    result.diagonal(dim1=-2, dim2=-1).add_(value)
    return result
