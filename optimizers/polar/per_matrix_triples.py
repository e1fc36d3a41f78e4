"""The quintic iteration with coefficients that are tensors: every matrix of a batch has triples of its own.

    X <- a X + (b A + c A²) X,   A = X Xᵀ,   from X = G / ‖G‖_F,   a, b, c of shape [batch, 1, 1]

The products are the same as with one triple for all; two elementwise passes over A and one over X are added, since BLAS
takes its factors as numbers only. In half precision each of them rounds: in bfloat16 two to three times the rounding of
the iteration with numbers, itself a tenth of what the polynomials leave.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectune.optimizers.polar.half_products import baddbmm, bmm
from spectune.optimizers.polar.normalization import normalised


def iterated_by_own(
    matrix: Tensor, counts: list[int], triples: Tensor, *, eps: float | Tensor, dtype: torch.dtype
) -> Tensor:
    """Normalise each matrix of [..., m, n], m <= n, and take its steps with its triples.

    Args:
        matrix: Floating point.
        counts: Steps of each matrix of the flattened batch.
        triples: Shape [..., number, 3], at least float32, broadcast over the leading dimensions; the last triple stands
            for every further step.
        eps: Norms below it count as it; broadcasts as [..., 1, 1].
        dtype: Of the products. Coefficients multiply before they are rounded to it.

    Returns:
        Shape of `matrix`, in `dtype`. Zero gives zero, a non-finite matrix one without a finite entry.

    Raises:
        ValueError: The triples do not broadcast over the leading dimensions.
    """
    X = normalised(matrix, eps=eps, safety=1.0).to(dtype).reshape(-1, *matrix.shape[-2:]).contiguous()
    own = _for_each(triples.to(matrix.device), matrix.shape[:-2])
    limit = None if len(set(counts)) == 1 else torch.tensor(counts, device=X.device)[:, None, None]
    for step in range(max(counts)):
        a, b, c = own[:, min(step, own.shape[-2] - 1), :, None, None].unbind(dim=1)
        A = bmm(X, X.mT)
        B = baddbmm((b * A).to(dtype), (c * A).to(dtype), A)
        further = baddbmm((a * X).to(dtype), B, X)
        X = further if limit is None else torch.where(step < limit, further, X)
    return X.reshape(matrix.shape)


def check_own_triples(triples: Tensor, solver: str, *, is_taken: bool) -> None:
    """Refuse a tensor that is no list of triples, or a solver that takes none.

    Raises:
        ValueError: With the shape and the solver.
    """
    if not is_taken or triples.ndim < 2 or triples.shape[-1] != 3:
        got = f"got shape {tuple(triples.shape)} for {solver!r}"
        raise ValueError(f"coefficients [..., triples, 3] are for newton_schulz and adanewton: {got}")


def _for_each(triples: Tensor, batch: torch.Size) -> Tensor:
    number = triples.shape[-2:]
    try:
        return triples.expand(*batch, *number).reshape(-1, *number)
    except RuntimeError as error:
        shapes = f"got {tuple(triples.shape)} for {tuple(batch)}"
        raise ValueError(
            f"coefficients [..., triples, 3] must broadcast over the leading dimensions: {shapes}"
        ) from error
